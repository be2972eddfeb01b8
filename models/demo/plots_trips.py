"""Plots about going out: strange sounds, storms, forbidden places, treasure."""

from grammar import Thing, ending, make_elder, make_friend, opening, pet

MYSTERIES = [
    ("a strange tapping sound", "Tap, tap, tap", "a woodpecker making a new home"),
    ("a low humming sound", "Hum, hum, hum", "a hive of bees singing at their work"),
    ("a strange light", "It blinked on and off", "a group of fireflies having a party"),
    ("a deep moaning sound", "Oooh, oooh", "the wind in a hollow tree"),
    ("a big dark shadow", "It moved from side to side", "an old coat on a branch"),
    ("a scratching sound", "Scratch, scratch, scratch", "a baby hedgehog looking for its mother"),
    ("a splashing sound", "Splash, splash", "two baby ducks learning to swim"),
    ("a ringing sound", "Ding, ding, ding", "a lamb with a little bell"),
    ("two shining eyes", "They looked right at {h.him}", "a small owl that was just as scared"),
    ("a trail of strange footprints", "They were big and round", "a friendly giant looking for the way"),
]


def mystery(s):
    """A strange sound or light turns out to be something nice."""
    c = s.cast
    c["f"] = make_friend(s, c["h"])
    c["thing"], sound, c["real"] = s.pick(MYSTERIES)
    c["sound"] = s.fragment(sound)
    s.theme = "wonder"
    s.gist = s.pick(
        ["who heard {thing}" if "sound" in c["thing"] else "who saw {thing}", "and {thing}", "and a mystery"]
    )
    s.title = s.pick(["The Strange Night", "What Was That?", "{h.tag} and the Mystery"])
    verb = c["verb"] = "heard" if "sound" in c["thing"] else "saw"
    opening(s, day=False)
    s.para(0.4)
    s.say(
        f"One [dark|quiet|windy|cold] night, {{h}} {verb} {{thing}} {{p.at}}. {{sound}}",
        f"One evening, when the sun was down, {{h}} {verb} {{thing}}. {{sound}}",
    )
    s.say(
        '"What is that?" whispered {h}',
        '"Maybe it is a monster," {h.he} thought',
        '{h.His} heart beat fast. "Who is there?" {h.he} called. Nobody answered',
    )
    s.say(
        '{h.He} ran to {h.his} friend, {f.intro}. "Come quickly!" {h.he} said',
        'Then {f.intro} came. "Did you see it too?" {f.he} asked'
        if verb == "saw"
        else 'Then {f.intro} came. "Did you hear it too?" {f.he} asked',
    )
    s.para(0.5)
    s.say(
        '"Let us go and look," said {f}. "I am afraid," said {h}, "but I will come with you."',
        '{f} wanted to hide, but {h} said, "I want to know what it is."',
        "They took a lantern and held hands",
    )
    pet(s, "{pet.call} hid behind {h.his} legs")
    s.say(
        "Slowly, they walked closer. They looked {spot}",
        "They crept through the dark, step by step, until they came to a place {spot}",
        "{spot}, they stopped and looked",
    )
    s.say(
        "And what did they see? It was only {real}!",
        "It was not a monster at all. It was {real}",
        "There it was. It was {real}",
    )
    s.para(0.4)
    s.say(
        '{h} began to laugh. "And we were so afraid!" {h.he} said',
        "They laughed and laughed",
        '"Oh!" said {h}. "That is not scary at all."',
        '"How wonderful!" said {f}',
    )
    s.maybe(
        0.6,
        "They sat down and watched for a long time",
        "They went home and slept well",
        "The next day, they told everyone about it",
    )
    s.qa += [
        (f"What did {{h}} {'hear' if verb == 'heard' else 'see'}?", "It was {real}."),
        ("Who went with {h}?", "{f.The} went with {h.him}."),
    ]
    ending(s, pair=s.chance(0.4))


def storm(s):
    """A storm, a shelter that is somebody's home, and a rainbow."""
    c = s.cast
    c["f"] = make_friend(s, c["h"])
    c["bad"], c["fell"], c["after"] = s.pick(
        [
            ("storm", "Rain fell, and thunder rolled", "a rainbow stood over the hills"),
            ("snowstorm", "Snow fell thick and fast", "the whole world was white and shining"),
            ("rain", "It rained and rained", "a big rainbow was in the sky"),
            ("wind", "The wind pushed and pulled at everything", "the air was calm and golden"),
        ]
    )
    c["shelter"] = s.pick(
        [
            "a hollow tree",
            "a small cave",
            "an old barn",
            "a little hut",
            "a house with a light in the window",
            "a hole under the roots of a tree",
        ]
    )
    s.theme = s.pick(["kind", "friend", "help"])
    s.gist = s.pick(["in a storm", "who was caught in the {bad}", "who met {f.plain} in a storm"])
    s.title = s.pick(["The Big {bad}", "After the {bad}", "{h.tag} in the {bad}"])
    opening(s)
    s.say(
        "Suddenly the sky turned dark",
        "Then big gray clouds came over the hill",
        "All at once the wind grew cold, and the sky turned black",
    )
    s.say("{fell}. {h} was [wet and cold|cold and afraid|far from home]", '{fell}. "I must find a dry place," said {h}')
    s.para(0.4)
    s.say("{h.He} ran and ran until {h.he} saw {shelter}", "At last {h} saw {shelter} and went inside")
    s.say("But somebody was already there. It was {f.intro}", '"Who is there?" asked a voice. It was {f.intro}')
    s.say(
        '"May I stay here until the {bad} is over?" asked {h}',
        '"I am sorry," said {h}. "I did not know this was your home."',
        '"I am cold and wet," said {h}',
    )
    s.say(
        '"Of course," said {f}. "There is room for two."',
        '"Come in and get warm," said {f}, and gave {h.him} some {food}',
        '{f} looked at {h.him} and smiled. "You are welcome here," {f.he} said',
    )
    pet(s, "{pet.call} shook the water off")
    s.para(0.4)
    s.say(
        "They sat close together and told stories",
        "They ate some {food} and listened to the {bad}",
        "{f} sang a song, and {h} forgot to be afraid",
    )
    s.say("When it was over, {after}", "In the morning, {after}")
    s.say(
        '"Thank you for letting me in," said {h}. "Come and visit me!"',
        '"The {bad} brought me a friend," said {f}',
        "They stood outside and looked at it together",
    )
    s.qa += [
        ("Where did {h} hide from the {bad}?", "{h.He} hid in {shelter}."),
        ("Who did {h} meet?", "{h.He} met {f.intro}."),
    ]
    ending(s, pair=True)


def warned(s):
    """Good advice, not followed, and a lesson."""
    c = s.cast
    c["e"] = make_elder(s, c["h"], family=True)
    c["f"] = make_friend(s, c["h"])
    c["rule"], c["broke"], c["trouble"], c["helped"] = s.pick(
        [
            (
                "go near the river",
                "went to the river",
                "{h.he} slipped and fell into the cold water",
                "pulled {h.him} out",
            ),
            (
                "eat the red berries",
                "ate a handful of red berries",
                "{h.his} belly began to hurt",
                "brought {h.him} some warm tea",
            ),
            (
                "climb the old tower",
                "climbed the old tower",
                "a step broke, and {h.he} could not get down",
                "brought a ladder",
            ),
            (
                "walk on the thin ice",
                "walked on the ice",
                "the ice went crack, and {h.his} foot got wet",
                "pulled {h.him} back to the bank",
            ),
            (
                "touch the bee hive",
                "touched the bee hive",
                "the bees came out and chased {h.him}",
                "showed {h.him} where to hide",
            ),
            (
                "eat too many sweets",
                "ate a whole bag of sweets",
                "{h.his} belly hurt very much",
                "made {h.him} some soup",
            ),
            (
                "go into the dark cave",
                "went into the dark cave",
                "{h.he} could not find the way out",
                "came with a lantern and led {h.him} out",
            ),
            ("open the gate", "opened the gate", "all the sheep ran out", "helped {h.him} to bring them back"),
            (
                "play with mud inside",
                "brought mud into the house",
                "everything was brown and sticky",
                "helped {h.him} to clean it all",
            ),
        ]
    )
    c["trouble"], c["helped"] = s.fragment(c["trouble"]), s.fragment(c["helped"])
    s.theme = "listen"
    s.gist = s.pick(["who did not listen", "who {broke}", "who learned to listen"])
    s.title = s.pick(["{h.tag} Did Not Listen", "Good Advice"])
    opening(s, day=False)
    s.say(
        '"You may play," said {e}, "but do not {rule}."',
        'Every day, {e} said, "Please do not {rule}."',
        '{e} always told {h.him}, "Never {rule}!"',
    )
    s.say('"I will not," said {h}', '"Yes, yes," said {h}, but {h.he} did not really listen', "{h} wanted to know why")
    s.para(0.5)
    s.say(
        "One {weather} day, {h} was alone. {h.He} forgot the rule and {broke}",
        "But one day, when {e} was busy, {h} {broke}",
        '"Only once," thought {h}, and {h.he} {broke}',
    )
    s.maybe(0.5, "At first it was fun", "It was nice for a little while")
    s.say("But then {trouble}", "Suddenly {trouble}", "Oh no! Now {trouble}")
    pet(s, "{pet.call} made a lot of noise to call for help")
    s.say('"Help!" cried {h}', "{h} was very sorry now", '"I should have listened," {h} thought')
    s.para(0.4)
    s.say(
        "Luckily, {f.intro} heard it and {helped}",
        "{f.Intro} came by and {helped}",
        "{h.His} friend, {f.intro}, came running and {helped}",
    )
    s.say(
        'At home, {h} told {e} everything. "I am sorry," {h.he} said',
        'Then {h} went home. "I did not listen," {h.he} told {e}. "I am sorry."',
    )
    s.say(
        '{e} hugged {h.him}. "I am only glad that you are safe," {e.he} said',
        '"Now you know why," said {e}, and kissed {h.him}',
        '{e} was not angry. "Next time you will know better," {e.he} said',
    )
    s.qa += [("What did {h} do wrong?", "{h.He} {broke}."), ("Who helped {h}?", "{f.The} {helped}.")]
    ending(s)


def treasure(s):
    """A map, a search in three steps, and what lies in the box."""
    c = s.cast
    c["f"] = make_friend(s, c["h"])
    c["inside"] = s.pick(
        [
            "old toys",
            "a pile of books",
            "seeds for a whole garden",
            "a hundred shiny buttons",
            "golden coins",
            "sweets for everyone",
            "a music box",
            "letters from long ago",
            'a mirror and a note that said, "You are the treasure"',
        ]
    )
    s.theme = s.pick(["team", "share", "wonder"])
    s.gist = s.pick(["who found a treasure", "who found a map", "and a treasure map", "and a hidden box"])
    s.title = s.pick(["The Treasure Map", "{h.tag} Finds a Treasure", "The Hidden Box"])
    c["o"] = Thing("box", s.pick(["small", "wooden", "green", "old", "heavy", "rusty"]))
    opening(s)
    s.say(
        "{spot}, {h} found an old map",
        "There {h.he} found a piece of paper {spot}. It was a map!",
        "The wind blew a piece of paper to {h.his} feet. It was a map with a red X",
    )
    s.say(
        '"A treasure!" said {h}. {h.He} ran to {f.intro}. "Will you come with me?"',
        '{h} showed it to {h.his} friend, {f.intro}. "Let us find the treasure!" said {f}',
    )
    s.para(0.5)
    s.say(
        "They walked over the [hill|bridge|stream] and past the [mill|tall rocks|old well]",
        "First they crossed the stream. Then they climbed the hill",
        "They went left, and then right, and then straight on",
    )
    s.say(
        'On the way, {h} got tired. "Do not stop now," said {f}',
        "Once they lost the path, but {f} found it again",
        "It was a long way, and they shared some {food}",
    )
    pet(s, "{pet.call} ran ahead")
    s.say('At last they came to a place {spot2}. "Dig here!" said {h}', "The X was {spot2}. They dug and dug")
    s.say("Clunk! There was {o.a}", "Deep in the earth was {o.a}", "They pulled out {o.a}")
    s.para(0.4)
    s.say(
        "{h} opened it slowly. Inside was {inside}"
        if c["inside"].startswith("a ")
        else "{h} opened it slowly. Inside were {inside}"
    )
    s.say(
        '"What shall we do with it?" asked {f}. "We will share it with everyone," said {h}',
        '"This is the best day of my life," said {f}',
        "They looked at each other and laughed",
    )
    s.maybe(0.6, "They carried the box home together", "{h} hung the map on the wall")
    s.qa += [
        ("What was in the box?", "Inside was {inside}." if c["inside"].startswith("a ") else "Inside were {inside}."),
        ("Who went with {h}?", "{f.The} went with {h.him}."),
    ]
    ending(s, pair=s.chance(0.6))


PLOTS = [(mystery, 1.1), (storm, 1.0), (warned, 1.0), (treasure, 1.0)]
