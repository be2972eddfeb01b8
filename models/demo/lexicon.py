"""The words of the demo corpus: who, what, where, and how they fit together.

Everything that has to agree in a story is stored together here. A kite is lost to the wind and is
found up a tree by somebody who can climb or fly; a fox lives in a den and not in a nest. The plots
in `plots_*.py` only combine entries of these tables, so they cannot write a frog that needs rescue
from a pond.
"""

from dataclasses import dataclass

# --- characters ---------------------------------------------------------------------------------

# species -> (home phrase, abilities)
ANIMALS = {
    "fox": ("in a cozy den under an oak tree", "run dig"),
    "rabbit": ("in a warm burrow under the hill", "hop dig small"),
    "bear": ("in a big brown cave", "strong big climb"),
    "mouse": ("in a tiny hole behind the barn", "small run"),
    "squirrel": ("in a hollow tree", "climb small"),
    "owl": ("in a tall pine tree", "fly eyes"),
    "bird": ("in a nest in an apple tree", "fly eyes small"),
    "duck": ("beside a quiet pond", "swim fly"),
    "frog": ("on a green lily pad", "swim hop small"),
    "turtle": ("near a slow river", "swim slow"),
    "hedgehog": ("under a pile of dry leaves", "small slow"),
    "cat": ("in a little house with a blue door", "climb eyes"),
    "dog": ("on a farm at the end of the road", "run dig"),
    "puppy": ("in a basket by the kitchen stove", "run dig small"),
    "kitten": ("in a little house with a red roof", "climb small"),
    "lion": ("in the tall yellow grass", "strong big run"),
    "elephant": ("near a wide river", "strong big"),
    "monkey": ("at the top of a palm tree", "climb"),
    "giraffe": ("among the tall trees", "tall big"),
    "pig": ("in a muddy yard on a farm", "dig"),
    "cow": ("in a red barn", "big strong"),
    "horse": ("in a stable on a hill", "run big strong"),
    "sheep": ("on a green hill", "slow"),
    "goat": ("on a rocky mountain", "climb"),
    "hen": ("in a small wooden hut", "small"),
    "chick": ("in a nest of soft straw", "small"),
    "deer": ("in the quiet part of the woods", "run"),
    "wolf": ("in a den among the rocks", "run strong"),
    "badger": ("in a deep sett in the woods", "dig strong"),
    "beaver": ("in a lodge made of sticks", "swim build"),
    "otter": ("on the bank of a clear river", "swim"),
    "penguin": ("on a shore of ice and snow", "swim"),
    "seal": ("on a smooth gray rock by the sea", "swim"),
    "crab": ("in a small cave on the beach", "small dig"),
    "snail": ("under a cabbage leaf", "small slow"),
    "bee": ("in a golden hive", "fly small"),
    "butterfly": ("among the wild flowers", "fly small"),
    "ladybug": ("on a green leaf", "fly small"),
    "ant": ("in a busy hill of sand", "small build"),
    "crow": ("at the top of an old tower", "fly eyes"),
    "panda": ("in a forest of bamboo", "climb big"),
    "koala": ("in a tall gum tree", "climb"),
    "kangaroo": ("on a wide red plain", "hop big"),
    "donkey": ("in a shed behind the mill", "strong slow"),
    "parrot": ("in a bright green jungle", "fly eyes"),
    "mole": ("in a long dark tunnel", "dig small"),
    "bat": ("in a quiet cave", "fly small"),
    "dragon": ("in a cave on a high mountain", "fly big strong"),
    "unicorn": ("in a silver forest", "run"),
    "robot": ("in a small workshop", "strong build"),
    "dinosaur": ("in a warm green valley", "big strong"),
    "tiger": ("in a shady part of the jungle", "strong run climb"),
    "swan": ("on a silver lake", "swim fly"),
    "goose": ("next to an old mill", "swim fly"),
    "raccoon": ("in a hollow log", "climb"),
    "skunk": ("under an old wooden bridge", "dig small"),
    "camel": ("at the edge of the desert", "strong big slow"),
    "pony": ("in a stable with a green door", "run"),
}
# Weighted towards the animals people ask a story about.
COMMON = ["fox", "rabbit", "bear", "mouse", "cat", "dog", "bird", "owl", "squirrel", "frog", "turtle", "duck"]

# What an animal likes to eat, and where it is mostly met; other animals eat and go anywhere.
LIKES = {"rabbit": ["carrots", "cabbage"], "bear": ["honey", "berries"], "mouse": ["cheese", "corn"], "squirrel": ["nuts", "pears"],
         "monkey": ["bananas", "melon"], "panda": ["berries", "bananas"], "bird": ["cherries", "berries"], "pig": ["corn", "apples"],
         "horse": ["apples", "carrots"], "pony": ["apples", "carrots"], "hedgehog": ["mushrooms", "plums"], "cow": ["corn", "cabbage"],
         "elephant": ["peaches", "bananas"], "parrot": ["nuts", "peaches"], "fox": ["plums", "cherries"], "hen": ["corn", "bread"],
         "duck": ["bread", "peas"], "dragon": ["soup", "hot peppers"], "bee": ["honey", "jam"], "goat": ["cabbage", "pears"]}
_WOODS = ("the forest", "the woods", "the hill", "the mountain", "the valley")
_WATER = ("the river", "the pond", "the beach", "the island")
_FARM = ("the farm", "the meadow", "the hill", "the village", "the garden")
_JUNGLE = ("the jungle", "the island", "the river", "the valley")
_HOUSE = ("the garden", "the park", "the town", "the village", "the farm")
HABITAT = {
    **dict.fromkeys(("fox", "bear", "squirrel", "owl", "deer", "wolf", "badger", "hedgehog", "raccoon", "unicorn", "mole", "bat"), _WOODS),
    **dict.fromkeys(("duck", "frog", "turtle", "beaver", "otter", "penguin", "seal", "crab", "swan"), _WATER),
    **dict.fromkeys(("rabbit", "pig", "cow", "horse", "sheep", "goat", "hen", "chick", "donkey", "goose", "pony", "mouse", "bee"), _FARM),
    **dict.fromkeys(("lion", "elephant", "monkey", "giraffe", "parrot", "tiger", "panda", "koala", "dinosaur"), _JUNGLE),
    **dict.fromkeys(("cat", "dog", "puppy", "kitten", "bird", "robot", "snail", "butterfly", "ladybug"), _HOUSE),
}

ADJS = ["little", "little", "little", "little", "small", "young", "tiny", "brave", "kind", "curious", "clever",
        "shy", "happy", "gentle", "friendly", "quiet", "playful", "silly", "cheerful", "sleepy", "lonely", "hungry"]
ADJS_OLD = ["old", "wise", "wise old", "kind old", "gray"]

GIRLS = ["Lily", "Mia", "Anna", "Lucy", "Emma", "Sara", "Zoe", "Ella", "Rosie", "Nora", "Sue", "Amy", "Jane", "Mary",
         "Kate", "Lola", "Ivy", "Maya", "Alice", "Grace", "Clara", "Ruth", "Nina", "Eva"]
BOYS = ["Tim", "Ben", "Tom", "Max", "Sam", "Jack", "Leo", "Finn", "Oliver", "Noah", "Billy", "Joe", "Peter", "Adam",
        "Luke", "Henry", "Daniel", "Oscar", "Hugo", "Theo", "Will", "Jim", "Nick", "Paul"]
PET_F = ["Ruby", "Daisy", "Bella", "Molly", "Poppy", "Luna", "Honey", "Willow", "Pearl", "Hazel", "Penny", "Dot",
         "Tilly", "Coco", "Misty", "Olive", "Maple", "Clover", "Pip", "Snowy"]
PET_M = ["Rusty", "Benny", "Bobo", "Charlie", "Milo", "Oscar", "Teddy", "Buddy", "Bruno", "Felix", "Toby", "Pepper",
         "Hoppy", "Barney", "Rex", "Spot", "Sunny", "Ollie", "Ziggy", "Gus", "Chip", "Biscuit"]
PETS = ["dog", "puppy", "cat", "kitten", "pony", "parrot", "rabbit"]

# role -> (gender or None for either, home)
ROLES = {
    "princess": ("f", "in a castle on a hill"), "prince": ("m", "in a castle on a hill"),
    "farmer": (None, "on a farm at the end of the road"), "baker": (None, "above a small bakery"),
    "king": ("m", "in a grand castle"), "queen": ("f", "in a grand castle"),
    "wizard": ("m", "in a crooked tower"), "fairy": ("f", "inside a blue flower"),
    "giant": ("m", "on top of a mountain"), "knight": (None, "in a stone tower"),
    "pirate": (None, "on a wooden ship"), "sailor": (None, "in a house near the harbor"),
    "gardener": (None, "in a house full of flowers"), "witch": ("f", "in a crooked house in the woods"),
    "fisherman": ("m", "in a hut by the sea"), "painter": (None, "in a bright little room"),
}

ELDERS_FAMILY = [("mother", "f"), ("mom", "f"), ("father", "m"), ("dad", "m"), ("grandmother", "f"), ("grandma", "f"),
                 ("grandfather", "m"), ("grandpa", "m"), ("aunt", "f"), ("uncle", "m")]
ELDER_ANIMALS = ["owl", "turtle", "bear", "badger", "goat", "crow", "horse", "elephant", "toad", "deer"]

# --- places -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A place: `n` "the forest", `at` "in the forest", `to` "to the forest", and spots in it."""

    n: str
    at: str
    far: str
    spots: tuple

    @property
    def to(self):
        return "to " + self.n


PLACES = [
    Place("the forest", "in the forest", "deep in the forest",
          ("under a bush", "behind a tall tree", "in a hollow log", "among the ferns", "under the fallen leaves")),
    Place("the woods", "in the woods", "at the edge of the woods",
          ("under an old oak", "behind a mossy rock", "among the roots of a tree", "beside a tree stump")),
    Place("the meadow", "in the meadow", "in a wide green meadow",
          ("in the tall grass", "among the daisies", "behind the big gray stone", "beside the fence")),
    Place("the garden", "in the garden", "in a garden full of roses",
          ("under the rose bush", "behind the watering can", "between the cabbages", "next to the garden gate")),
    Place("the park", "in the park", "in a big park",
          ("under the bench", "near the swings", "behind the fountain", "beside the slide")),
    Place("the beach", "on the beach", "on a long sandy beach",
          ("behind a big rock", "under a pile of seaweed", "beside an old boat", "among the shells")),
    Place("the village", "in the village", "in a small village by the sea",
          ("behind the bakery", "next to the well", "under a market table", "near the old church")),
    Place("the town", "in the town", "in a busy little town",
          ("near the clock tower", "behind the toy shop", "under the bridge", "beside the school")),
    Place("the farm", "on the farm", "on a sunny farm",
          ("in the hay", "behind the barn", "next to the pig pen", "under the old cart")),
    Place("the hill", "on the hill", "on top of a green hill",
          ("behind a round rock", "in the soft clover", "next to the windmill", "under a lonely tree")),
    Place("the river", "by the river", "near a clear river",
          ("among the reeds", "under the willow tree", "behind the wet stones", "next to the old bridge")),
    Place("the pond", "by the pond", "near a small pond",
          ("among the reeds", "next to the lily pads", "under a fern", "behind a mossy log")),
    Place("the mountain", "on the mountain", "high on a mountain",
          ("in a small cave", "behind a gray rock", "beside the narrow path", "under a pine tree")),
    Place("the valley", "in the valley", "in a quiet valley",
          ("beside the stream", "behind a wooden gate", "among the wild flowers", "under a bush")),
    Place("the jungle", "in the jungle", "in a warm green jungle",
          ("under a giant leaf", "behind the waterfall", "among the vines", "near a palm tree")),
    Place("the island", "on the island", "on a tiny island",
          ("under a palm tree", "behind the dunes", "beside a tide pool", "in a sandy cave")),
]

# mood -> adjectives for a day (none starts with a vowel: "a {weather} day"), and sentences that fit them
WEATHER = {
    "sunny": ["sunny", "bright", "warm", "lovely", "beautiful", "fine", "hot"],
    "windy": ["windy", "cool", "fresh", "breezy"],
    "rainy": ["rainy", "gray", "wet", "cloudy"],
    "snowy": ["snowy", "cold", "white", "frosty"],
    "spring": ["spring", "mild", "fresh", "lovely"],
    "autumn": ["golden", "quiet", "foggy", "cool"],
}
SKY = {
    "sunny": ["The sun was shining.", "The sky was blue.", "The air was warm and sweet."],
    "windy": ["The wind was playing in the trees.", "Leaves danced in the air.", "The wind blew softly."],
    "rainy": ["The rain fell on the leaves.", "There were puddles on the path.", "Gray clouds filled the sky."],
    "snowy": ["White snow covered the ground.", "Soft snow fell from the sky.", "The air was cold and clear."],
    "spring": ["The birds were singing.", "The flowers were opening.", "Everything smelled fresh and green."],
    "autumn": ["The leaves were red and gold.", "The leaves were falling one by one.", "The air smelled of apples."],
}

# --- things -------------------------------------------------------------------------------------

# how it gets lost -> things of that kind. The kind also decides where it is found and by whom.
THINGS = {
    "wind": ["kite", "hat", "scarf", "balloon", "paper bird", "ribbon", "map", "letter", "feather", "umbrella"],
    "roll": ["ball", "marble", "apple", "wheel", "pumpkin", "drum", "egg", "lemon", "yarn ball", "acorn"],
    "float": ["toy boat", "paper boat", "basket", "wooden duck", "boot", "bottle", "little raft"],
    "slip": ["key", "ring", "button", "coin", "bell", "whistle", "necklace", "shell", "spoon", "shiny stone", "brush"],
    "left": ["book", "teddy bear", "doll", "blanket", "lantern", "flute", "toy car", "toy train", "backpack", "mitten",
             "cup", "violin"],
}
COLORS = ["red", "blue", "green", "yellow", "white", "orange", "purple", "golden", "silver", "pink"]
LOOKS = {
    "wind": ["bright", "soft", "favorite", "new", "pretty", "lovely"],
    "roll": ["big", "round", "shiny", "smooth", "favorite", "new"],
    "float": ["little", "wooden", "favorite", "old", "new", "small"],
    "slip": ["shiny", "tiny", "lucky", "special", "golden", "silver", "small", "favorite"],
    "left": ["favorite", "old", "soft", "little", "new", "special"],
}

LOSE = {
    "wind": ["Suddenly a strong wind came and [took|blew|carried] {o.the} away",
             "But the wind was strong, and it [pulled|lifted] {o.the} high into the sky",
             "Then, whoosh! The wind [snatched {o.the} and carried it|blew {o.the}] over the trees"],
    "roll": ["But {o.the} [rolled|bounced] away, down the path and out of sight",
             "Then {h} tripped, and {o.the} rolled [down the hill|into the bushes|far away]",
             "Suddenly {o.the} slipped and rolled away, faster and faster"],
    "float": ["But the stream was fast, and {o.the} floated away",
              "{h} put {o.the} in a stream, and the water carried it away",
              "Then {o.the} fell into the stream and floated out of sight"],
    "slip": ["But there was a little hole in {h.his} pocket, and {o.the} fell out",
             "On the way home, {o.the} slipped out of {h.his} bag",
             "When {h} [stopped to rest|looked in the bag], {o.the} was gone"],
    "left": ["But when it was time to go home, {h} could not find {o.the}",
             "In the evening, {h} looked for {o.the}, but it was not in its place",
             "After a long day, {h} saw that {o.the} was missing"],
}
# kind -> (place found, what the finder does, ability the finder needs)
FOUND = {
    "wind": [("at the top of a tall tree", "climbed up the tree and pulled {o.the} free", "climb"),
             ("on the roof of an old barn", "flew up to the roof and brought {o.the} down", "fly"),
             ("in the branches of an apple tree", "flew up and shook {o.the} out of the branches", "fly"),
             ("high on a rocky cliff", "climbed the rocks and carried {o.the} down", "climb"),
             ("in a tall pine tree", "stretched up high and took {o.the} down", "tall")],
    "roll": [("at the bottom of a deep hole", "dug in the soft ground and pushed {o.the} out", "dig"),
             ("under a thorny bush", "crawled under the thorns and rolled {o.the} out", "small"),
             ("under a fallen tree", "lifted the tree and pulled {o.the} out", "strong"),
             ("in a rabbit hole", "crept into the hole and pushed {o.the} out", "small")],
    "float": [("in the middle of the pond", "swam across the pond and pushed {o.the} back", "swim"),
              ("among the reeds in the river", "swam through the reeds and pulled {o.the} to the bank", "swim"),
              ("next to the beaver dam", "swam out to the dam and brought {o.the} back", "swim")],
    "slip": [("in the tall grass", "looked down with sharp eyes and saw {o.the} shining", "eyes"),
             ("between two flat stones", "reached between the stones and picked up {o.the}", "small"),
             ("under the soft earth", "dug with quick paws and found {o.the}", "dig"),
             ("in a crack in the wall", "crawled into the crack and came back with {o.the}", "small")],
    "left": [("under the bench where they ate lunch", "ran back along the path and found {o.the}", "run"),
             ("beside the old well", "ran to the well and came back with {o.the}", "run"),
             ("behind the garden gate", "followed the path back and found {o.the} there", "run"),
             ("on a flat rock in the sun", "flew over the path and saw {o.the} lying there", "fly")],
}

FOODS = ["honey cake", "apple pie", "berries", "bread", "carrots", "cookies", "soup", "nuts", "pears", "cherries",
         "strawberries", "pancakes", "cheese", "corn", "plums", "muffins", "honey", "mushrooms", "melon", "peaches",
         "bananas", "cabbage", "apples", "peas", "jam", "hot peppers"]
PLANTS = [("sunflower", "seed"), ("pumpkin", "seed"), ("apple tree", "seed"), ("rose", "bulb"), ("bean plant", "bean"),
          ("tulip", "bulb"), ("cherry tree", "stone"), ("oak tree", "acorn"), ("strawberry plant", "plant"),
          ("lemon tree", "seed")]

HOBBIES = ["sing songs", "pick flowers", "chase butterflies", "count the stars", "collect shiny stones",
           "jump in puddles", "climb little hills", "tell jokes", "paint pictures", "look at the clouds",
           "dance in the rain", "play hide and seek", "listen to the wind", "bake small cakes", "make new friends",
           "explore new paths", "watch the sunset", "read stories", "roll down the hill", "play with leaves",
           "build towers of stones", "take long walks", "swing under the trees", "learn new things", "help others"]

# A second sentence about the hero.
HABITS = ["{h.He} had a big smile and a good heart", "{h.He} had bright eyes and a warm smile", "{h.He} had many dreams",
          "{h.He} was always the first to wake up", "{h.He} asked a lot of questions", "{h.He} never sat still for long",
          "{h.He} liked to think about big things", "{h.He} had a soft voice", "{h.He} laughed at everything",
          "{h.He} knew every path by heart", "{h.He} always carried a small bag", "{h.He} wore a little green hat",
          "{h.He} was not very big, but {h.he} was not afraid of work", "{h.He} could whistle like the wind",
          "{h.He} was always hungry", "{h.He} liked to sleep late", "{h.He} hummed all day long"]

MORALS = {
    "lost": ["to take good care of special things", "that friends can find what we cannot", "to ask for help",
             "never to give up looking"],
    "miss": ["that true friends always come back", "that waiting is easier with hope", "that friends stay close even when they are far away"],
    "friend": ["that a friend can look very different", "to say hello first",
               "that everyone needs a friend", "that being kind is the way to make friends"],
    "share": ["that sharing makes food taste better", "that it feels good to share",
              "that a small gift can bring great joy", "that there is always enough to share"],
    "brave": ["that being brave means trying even when you are afraid", "that fear gets smaller when you face it",
              "that even the smallest one can be brave", "that courage grows inside us"],
    "help": ["that helping others makes the heart warm", "that no one is too small to help",
             "that a kind act always comes back", "to stop and help when someone cries"],
    "practice": ["that practice makes things easier", "never to give up", "that every mistake teaches something",
                 "that good things take time"],
    "team": ["that many hands make light work", "that working together is fun", "that a team can do great things"],
    "listen": ["to listen to good advice", "that rules keep us safe", "to think before running off"],
    "honest": ["that it is always best to tell the truth", "that telling the truth takes courage",
               "that everyone makes mistakes"],
    "gift": ["that the best gifts come from the heart", "that a gift does not have to cost money",
             "that time and love are the best gifts"],
    "proud": ["not to be too proud", "that winning is not everything", "that slow and steady is good too",
              "that friends are better than prizes"],
    "wonder": ["that strange things can be beautiful", "not to be afraid of what is new",
               "that it is good to ask questions", "to look closer before being afraid"],
    "patience": ["to be patient", "that good things grow slowly", "that care and time work wonders"],
    "home": ["that home is the best place of all", "to stay close to the path", "that there is always a way home"],
    "wish": ["that a wish for others is the best wish", "that kindness is the real magic",
             "that giving is better than getting"],
    "kind": ["that kind words can open any door", "that some who seem angry are only sad", "to be kind to everyone"],
    "trade": ["that one good turn leads to another", "that everyone has something to give",
              "that helping each other gets things done"],
    "rest": ["that sleep makes everything better", "that a quiet song can calm the heart"],
}
