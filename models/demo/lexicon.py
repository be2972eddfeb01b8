"""The cast and the places of the demo corpus, with what has to agree about them.

A fox lives in a den and not in a nest, likes plums, and is met in the woods. The plots in
`plots_*.py` combine entries of these tables and of `props.py`, so that they cannot write a frog that
has to be rescued from a pond.
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
LIKES = {
    "rabbit": ["carrots", "cabbage"],
    "bear": ["honey", "berries"],
    "mouse": ["cheese", "corn"],
    "squirrel": ["nuts", "pears"],
    "monkey": ["bananas", "melon"],
    "panda": ["berries", "bananas"],
    "bird": ["cherries", "berries"],
    "pig": ["corn", "apples"],
    "horse": ["apples", "carrots"],
    "pony": ["apples", "carrots"],
    "hedgehog": ["mushrooms", "plums"],
    "cow": ["corn", "cabbage"],
    "elephant": ["peaches", "bananas"],
    "parrot": ["nuts", "peaches"],
    "fox": ["plums", "cherries"],
    "hen": ["corn", "bread"],
    "duck": ["bread", "peas"],
    "dragon": ["soup", "hot peppers"],
    "bee": ["honey", "jam"],
    "goat": ["cabbage", "pears"],
}
_WOODS = ("the forest", "the woods", "the hill", "the mountain", "the valley")
_WATER = ("the river", "the pond", "the beach", "the island")
_FARM = ("the farm", "the meadow", "the hill", "the village", "the garden")
_JUNGLE = ("the jungle", "the island", "the river", "the valley")
_HOUSE = ("the garden", "the park", "the town", "the village", "the farm")
HABITAT = {
    **dict.fromkeys(
        ("fox", "bear", "squirrel", "owl", "deer", "wolf", "badger", "hedgehog", "raccoon", "unicorn", "mole", "bat"),
        _WOODS,
    ),
    **dict.fromkeys(("duck", "frog", "turtle", "beaver", "otter", "penguin", "seal", "crab", "swan"), _WATER),
    **dict.fromkeys(
        ("rabbit", "pig", "cow", "horse", "sheep", "goat", "hen", "chick", "donkey", "goose", "pony", "mouse", "bee"),
        _FARM,
    ),
    **dict.fromkeys(
        ("lion", "elephant", "monkey", "giraffe", "parrot", "tiger", "panda", "koala", "dinosaur"), _JUNGLE
    ),
    **dict.fromkeys(("cat", "dog", "puppy", "kitten", "bird", "robot", "snail", "butterfly", "ladybug"), _HOUSE),
}

ADJS = [
    "little",
    "little",
    "little",
    "little",
    "small",
    "young",
    "tiny",
    "brave",
    "kind",
    "curious",
    "clever",
    "shy",
    "happy",
    "gentle",
    "friendly",
    "quiet",
    "playful",
    "silly",
    "cheerful",
    "sleepy",
    "lonely",
    "hungry",
]
ADJS_OLD = ["old", "wise", "wise old", "kind old", "gray"]

GIRLS = [
    "Lily",
    "Mia",
    "Anna",
    "Lucy",
    "Emma",
    "Sara",
    "Zoe",
    "Ella",
    "Rosie",
    "Nora",
    "Sue",
    "Amy",
    "Jane",
    "Mary",
    "Kate",
    "Lola",
    "Ivy",
    "Maya",
    "Alice",
    "Grace",
    "Clara",
    "Ruth",
    "Nina",
    "Eva",
]
BOYS = [
    "Tim",
    "Ben",
    "Tom",
    "Max",
    "Sam",
    "Jack",
    "Leo",
    "Finn",
    "Oliver",
    "Noah",
    "Billy",
    "Joe",
    "Peter",
    "Adam",
    "Luke",
    "Henry",
    "Daniel",
    "Oscar",
    "Hugo",
    "Theo",
    "Will",
    "Jim",
    "Nick",
    "Paul",
]
PET_F = [
    "Ruby",
    "Daisy",
    "Bella",
    "Molly",
    "Poppy",
    "Luna",
    "Honey",
    "Willow",
    "Pearl",
    "Hazel",
    "Penny",
    "Dot",
    "Tilly",
    "Coco",
    "Misty",
    "Olive",
    "Maple",
    "Clover",
    "Pip",
    "Snowy",
]
PET_M = [
    "Rusty",
    "Benny",
    "Bobo",
    "Charlie",
    "Milo",
    "Oscar",
    "Teddy",
    "Buddy",
    "Bruno",
    "Felix",
    "Toby",
    "Pepper",
    "Hoppy",
    "Barney",
    "Rex",
    "Spot",
    "Sunny",
    "Ollie",
    "Ziggy",
    "Gus",
    "Chip",
    "Biscuit",
]
PETS = ["dog", "puppy", "cat", "kitten", "pony", "parrot", "rabbit"]

# role -> (gender or None for either, home)
ROLES = {
    "princess": ("f", "in a castle on a hill"),
    "prince": ("m", "in a castle on a hill"),
    "farmer": (None, "on a farm at the end of the road"),
    "baker": (None, "above a small bakery"),
    "king": ("m", "in a grand castle"),
    "queen": ("f", "in a grand castle"),
    "wizard": ("m", "in a crooked tower"),
    "fairy": ("f", "inside a blue flower"),
    "giant": ("m", "on top of a mountain"),
    "knight": (None, "in a stone tower"),
    "pirate": (None, "on a wooden ship"),
    "sailor": (None, "in a house near the harbor"),
    "gardener": (None, "in a house full of flowers"),
    "witch": ("f", "in a crooked house in the woods"),
    "fisherman": ("m", "in a hut by the sea"),
    "painter": (None, "in a bright little room"),
}

ELDERS_FAMILY = [
    ("mother", "f"),
    ("mom", "f"),
    ("father", "m"),
    ("dad", "m"),
    ("grandmother", "f"),
    ("grandma", "f"),
    ("grandfather", "m"),
    ("grandpa", "m"),
    ("aunt", "f"),
    ("uncle", "m"),
]
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
    Place(
        "the forest",
        "in the forest",
        "deep in the forest",
        ("under a bush", "behind a tall tree", "in a hollow log", "among the ferns", "under the fallen leaves"),
    ),
    Place(
        "the woods",
        "in the woods",
        "at the edge of the woods",
        ("under an old oak", "behind a mossy rock", "among the roots of a tree", "beside a tree stump"),
    ),
    Place(
        "the meadow",
        "in the meadow",
        "in a wide green meadow",
        ("in the tall grass", "among the daisies", "behind the big gray stone", "beside the fence"),
    ),
    Place(
        "the garden",
        "in the garden",
        "in a garden full of roses",
        ("under the rose bush", "behind the watering can", "between the cabbages", "next to the garden gate"),
    ),
    Place(
        "the park",
        "in the park",
        "in a big park",
        ("under the bench", "near the swings", "behind the fountain", "beside the slide"),
    ),
    Place(
        "the beach",
        "on the beach",
        "on a long sandy beach",
        ("behind a big rock", "under a pile of seaweed", "beside an old boat", "among the shells"),
    ),
    Place(
        "the village",
        "in the village",
        "in a small village by the sea",
        ("behind the bakery", "next to the well", "under a market table", "near the old church"),
    ),
    Place(
        "the town",
        "in the town",
        "in a busy little town",
        ("near the clock tower", "behind the toy shop", "under the bridge", "beside the school"),
    ),
    Place(
        "the farm",
        "on the farm",
        "on a sunny farm",
        ("in the hay", "behind the barn", "next to the pig pen", "under the old cart"),
    ),
    Place(
        "the hill",
        "on the hill",
        "on top of a green hill",
        ("behind a round rock", "in the soft clover", "next to the windmill", "under a lonely tree"),
    ),
    Place(
        "the river",
        "by the river",
        "near a clear river",
        ("among the reeds", "under the willow tree", "behind the wet stones", "next to the old bridge"),
    ),
    Place(
        "the pond",
        "by the pond",
        "near a small pond",
        ("among the reeds", "next to the lily pads", "under a fern", "behind a mossy log"),
    ),
    Place(
        "the mountain",
        "on the mountain",
        "high on a mountain",
        ("in a small cave", "behind a gray rock", "beside the narrow path", "under a pine tree"),
    ),
    Place(
        "the valley",
        "in the valley",
        "in a quiet valley",
        ("beside the stream", "behind a wooden gate", "among the wild flowers", "under a bush"),
    ),
    Place(
        "the jungle",
        "in the jungle",
        "in a warm green jungle",
        ("under a giant leaf", "behind the waterfall", "among the vines", "near a palm tree"),
    ),
    Place(
        "the island",
        "on the island",
        "on a tiny island",
        ("under a palm tree", "behind the dunes", "beside a tide pool", "in a sandy cave"),
    ),
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
