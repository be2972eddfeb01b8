"""The things of the demo corpus: how they get lost and who can get them back; food, hobbies, morals.

A kite is lost to the wind, and found up a tree by somebody who can climb or fly.
"""

# how it gets lost -> things of that kind. The kind also decides where it is found and by whom.
THINGS = {
    "wind": ["kite", "hat", "scarf", "balloon", "paper bird", "ribbon", "map", "letter", "feather", "umbrella"],
    "roll": ["ball", "marble", "apple", "wheel", "pumpkin", "drum", "egg", "lemon", "yarn ball", "acorn"],
    "float": ["toy boat", "paper boat", "basket", "wooden duck", "boot", "bottle", "little raft"],
    "slip": ["key", "ring", "button", "coin", "bell", "whistle", "necklace", "shell", "spoon", "shiny stone", "brush"],
    "left": [
        "book",
        "teddy bear",
        "doll",
        "blanket",
        "lantern",
        "flute",
        "toy car",
        "toy train",
        "backpack",
        "mitten",
        "cup",
        "violin",
    ],
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
    "wind": [
        "Suddenly a strong wind came and [took|blew|carried] {o.the} away",
        "But the wind was strong, and it [pulled|lifted] {o.the} high into the sky",
        "Then, whoosh! The wind [snatched {o.the} and carried it|blew {o.the}] over the trees",
    ],
    "roll": [
        "But {o.the} [rolled|bounced] away, down the path and out of sight",
        "Then {h} tripped, and {o.the} rolled [down the hill|into the bushes|far away]",
        "Suddenly {o.the} slipped and rolled away, faster and faster",
    ],
    "float": [
        "But the stream was fast, and {o.the} floated away",
        "{h} put {o.the} in a stream, and the water carried it away",
        "Then {o.the} fell into the stream and floated out of sight",
    ],
    "slip": [
        "But there was a little hole in {h.his} pocket, and {o.the} fell out",
        "On the way home, {o.the} slipped out of {h.his} bag",
        "When {h} [stopped to rest|looked in the bag], {o.the} was gone",
    ],
    "left": [
        "But when it was time to go home, {h} could not find {o.the}",
        "In the evening, {h} looked for {o.the}, but it was not in its place",
        "After a long day, {h} saw that {o.the} was missing",
    ],
}
# kind -> (place found, what the finder does, ability the finder needs)
FOUND = {
    "wind": [
        ("at the top of a tall tree", "climbed up the tree and pulled {o.the} free", "climb"),
        ("on the roof of an old barn", "flew up to the roof and brought {o.the} down", "fly"),
        ("in the branches of an apple tree", "flew up and shook {o.the} out of the branches", "fly"),
        ("high on a rocky cliff", "climbed the rocks and carried {o.the} down", "climb"),
        ("in a tall pine tree", "stretched up high and took {o.the} down", "tall"),
    ],
    "roll": [
        ("at the bottom of a deep hole", "dug in the soft ground and pushed {o.the} out", "dig"),
        ("under a thorny bush", "crawled under the thorns and rolled {o.the} out", "small"),
        ("under a fallen tree", "lifted the tree and pulled {o.the} out", "strong"),
        ("in a rabbit hole", "crept into the hole and pushed {o.the} out", "small"),
    ],
    "float": [
        ("in the middle of the pond", "swam across the pond and pushed {o.the} back", "swim"),
        ("among the reeds in the river", "swam through the reeds and pulled {o.the} to the bank", "swim"),
        ("next to the beaver dam", "swam out to the dam and brought {o.the} back", "swim"),
    ],
    "slip": [
        ("in the tall grass", "looked down with sharp eyes and saw {o.the} shining", "eyes"),
        ("between two flat stones", "reached between the stones and picked up {o.the}", "small"),
        ("under the soft earth", "dug with quick paws and found {o.the}", "dig"),
        ("in a crack in the wall", "crawled into the crack and came back with {o.the}", "small"),
    ],
    "left": [
        ("under the bench where they ate lunch", "ran back along the path and found {o.the}", "run"),
        ("beside the old well", "ran to the well and came back with {o.the}", "run"),
        ("behind the garden gate", "followed the path back and found {o.the} there", "run"),
        ("on a flat rock in the sun", "flew over the path and saw {o.the} lying there", "fly"),
    ],
}

FOODS = [
    "honey cake",
    "apple pie",
    "berries",
    "bread",
    "carrots",
    "cookies",
    "soup",
    "nuts",
    "pears",
    "cherries",
    "strawberries",
    "pancakes",
    "cheese",
    "corn",
    "plums",
    "muffins",
    "honey",
    "mushrooms",
    "melon",
    "peaches",
    "bananas",
    "cabbage",
    "apples",
    "peas",
    "jam",
    "hot peppers",
]
PLANTS = [
    ("sunflower", "seed"),
    ("pumpkin", "seed"),
    ("apple tree", "seed"),
    ("rose", "bulb"),
    ("bean plant", "bean"),
    ("tulip", "bulb"),
    ("cherry tree", "stone"),
    ("oak tree", "acorn"),
    ("strawberry plant", "plant"),
    ("lemon tree", "seed"),
]

HOBBIES = [
    "sing songs",
    "pick flowers",
    "chase butterflies",
    "count the stars",
    "collect shiny stones",
    "jump in puddles",
    "climb little hills",
    "tell jokes",
    "paint pictures",
    "look at the clouds",
    "dance in the rain",
    "play hide and seek",
    "listen to the wind",
    "bake small cakes",
    "make new friends",
    "explore new paths",
    "watch the sunset",
    "read stories",
    "roll down the hill",
    "play with leaves",
    "build towers of stones",
    "take long walks",
    "swing under the trees",
    "learn new things",
    "help others",
]

# A second sentence about the hero.
HABITS = [
    "{h.He} had a big smile and a good heart",
    "{h.He} had bright eyes and a warm smile",
    "{h.He} had many dreams",
    "{h.He} was always the first to wake up",
    "{h.He} asked a lot of questions",
    "{h.He} never sat still for long",
    "{h.He} liked to think about big things",
    "{h.He} had a soft voice",
    "{h.He} laughed at everything",
    "{h.He} knew every path by heart",
    "{h.He} always carried a small bag",
    "{h.He} wore a little green hat",
    "{h.He} was not very big, but {h.he} was not afraid of work",
    "{h.He} could whistle like the wind",
    "{h.He} was always hungry",
    "{h.He} liked to sleep late",
    "{h.He} hummed all day long",
]

MORALS = {
    "lost": [
        "to take good care of special things",
        "that friends can find what we cannot",
        "to ask for help",
        "never to give up looking",
    ],
    "miss": [
        "that true friends always come back",
        "that waiting is easier with hope",
        "that friends stay close even when they are far away",
    ],
    "friend": [
        "that a friend can look very different",
        "to say hello first",
        "that everyone needs a friend",
        "that being kind is the way to make friends",
    ],
    "share": [
        "that sharing makes food taste better",
        "that it feels good to share",
        "that a small gift can bring great joy",
        "that there is always enough to share",
    ],
    "brave": [
        "that being brave means trying even when you are afraid",
        "that fear gets smaller when you face it",
        "that even the smallest one can be brave",
        "that courage grows inside us",
    ],
    "help": [
        "that helping others makes the heart warm",
        "that no one is too small to help",
        "that a kind act always comes back",
        "to stop and help when someone cries",
    ],
    "practice": [
        "that practice makes things easier",
        "never to give up",
        "that every mistake teaches something",
        "that good things take time",
    ],
    "team": ["that many hands make light work", "that working together is fun", "that a team can do great things"],
    "listen": ["to listen to good advice", "that rules keep us safe", "to think before running off"],
    "honest": [
        "that it is always best to tell the truth",
        "that telling the truth takes courage",
        "that everyone makes mistakes",
    ],
    "gift": [
        "that the best gifts come from the heart",
        "that a gift does not have to cost money",
        "that time and love are the best gifts",
    ],
    "proud": [
        "not to be too proud",
        "that winning is not everything",
        "that slow and steady is good too",
        "that friends are better than prizes",
    ],
    "wonder": [
        "that strange things can be beautiful",
        "not to be afraid of what is new",
        "that it is good to ask questions",
        "to look closer before being afraid",
    ],
    "patience": ["to be patient", "that good things grow slowly", "that care and time work wonders"],
    "home": ["that home is the best place of all", "to stay close to the path", "that there is always a way home"],
    "wish": [
        "that a wish for others is the best wish",
        "that kindness is the real magic",
        "that giving is better than getting",
    ],
    "kind": ["that kind words can open any door", "that some who seem angry are only sad", "to be kind to everyone"],
    "trade": [
        "that one good turn leads to another",
        "that everyone has something to give",
        "that helping each other gets things done",
    ],
    "rest": ["that sleep makes everything better", "that a quiet song can calm the heart"],
}
