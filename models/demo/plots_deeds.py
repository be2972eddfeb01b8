"""Plots about doing: rescues, skills, building, races."""

from grammar import an, ending, make_animal, make_elder, make_friend, opening, pet

RESCUES = [
    ("in a deep hole", "fell into it", "a long rope", "let it down", "climbed out", "by the path"),
    ("in a thorny bush", "got caught in it", "a strong stick", "pushed the thorns away", "came out", "near the fence"),
    ("in thick mud", "sank in to the knees", "a long branch", "held it out", "held on and came free", "by the water"),
    ("in an old net", "ran right into it", "a sharp stone", "cut the net", "was free", "on the ground"),
    (
        "under a fallen branch",
        "did not see it fall",
        "a long pole",
        "lifted the branch with it",
        "crawled out",
        "nearby",
    ),
    (
        "on a rock in the river",
        "slipped and fell in",
        "a big log",
        "pushed it into the water",
        "walked over it",
        "on the bank",
    ),
    ("in a tall tree", "climbed too high", "a ladder", "put it against the tree", "came down", "by the barn"),
]


def rescue(s):
    """Somebody is stuck; the hero finds the right tool, alone or with the others."""
    c = s.cast
    c["f"] = make_animal(
        s,
        [c["h"]],
        named=0.4,
        pool=[
            "rabbit",
            "hedgehog",
            "puppy",
            "kitten",
            "sheep",
            "goat",
            "deer",
            "chick",
            "mouse",
            "fox",
            "pig",
            "duck",
            "turtle",
            "squirrel",
            "pony",
            "cat",
        ],
    )
    c["trap"], c["how"], c["tool"], c["use"], c["free"], c["by"] = s.pick(RESCUES)
    s.theme = "help"
    s.gist = s.pick(
        ["who saved {f.plain}", "who helped {f.plain}", "and {f.plain} stuck {trap}", "who helped a friend"]
    )
    s.title = s.pick(["{h.tag} to the Rescue", "The {h.noun} Who Helped", "Help for the {f.noun}"])
    opening(s)
    s.say('Suddenly {h.he} heard a [cry|small voice]. "Help! Please help me!"', 'Then {h} heard somebody call, "Help!"')
    s.say("{h} ran to look. {f.Intro} was stuck {trap}", "It was {f.intro}, stuck {trap}")
    s.say(
        '"What happened?" asked {h}. "I {how}," said {f}'
        if c["how"] != "sank in to the knees"
        else '"I cannot move," said {f}',
        '{f} was crying. "I cannot get out," {f.he} said',
        '"Do not be afraid. I will help you," said {h}',
    )
    s.para(0.5)
    s.say(
        "{h} pulled and pulled, but it did not work",
        "First {h} tried to pull {f.him} out. {h.He} was not strong enough",
        '{h} thought hard. "What can I do?" {h.he} asked',
    )
    pet(s, "{pet.call} pulled too")
    s.say(
        'Then {h.he} saw {tool} {by}. "That will help!" {h.he} said',
        '"I know!" said {h}. {h.He} ran and found {tool} {by}',
        "{h} looked around and saw {tool} {by}",
    )
    s.say("{h} took {tool} and {use}", "{h.He} brought {tool} and {use}")
    s.say("{f} {free}", "Slowly, {f} {free}", "One, two, three! {f} {free}")
    s.para(0.5)
    s.say(
        '"Thank you!" said {f}. "You saved me!"',
        '{f} was so happy that {f.he} cried. "How can I thank you?" {f.he} asked. "Be my friend," said {h}',
        '"You are a hero," said {f}',
    )
    s.maybe(
        0.6,
        "{f} gave {h} some {food}",
        "They sat down in the sun and ate some {food}",
        "{h} took {f} home to {f.his} family",
    )
    s.qa += [
        ("Who did {h} help?", "{h.He} helped {f.the}."),
        ("Where was {f.the} stuck?", "{f.He} was stuck {trap}."),
        ("How did {h} help?", "{h.He} took {tool} and {use}."),
    ]
    ending(s, pair=s.chance(0.7))


SKILLS = [
    ("swim", "sank like a stone", "swam across the pond", "move your feet slowly and breathe"),
    ("dance", "fell over {h.his} own feet", "danced at the big feast", "listen to the music first"),
    ("whistle", "made only a puff of air", "whistled a whole song", "make your lips round"),
    ("ride a bike", "fell into the grass", "rode all around the village", "look ahead and not down"),
    ("paint", "made a brown mess", "painted a picture of the sunset", "use only a little paint"),
    ("sing", "made a sound like a rusty door", "sang for everyone", "take a deep breath"),
    ("skate", "slid on {h.his} back", "skated across the ice", "bend your knees"),
    ("bake bread", "burned it black", "baked a golden loaf of bread", "wait for the dough to rise"),
    ("read", "mixed up all the letters", "read a whole book", "read one word at a time"),
    ("play the drum", "lost the beat", "played in the parade", "count one, two, three, four"),
    ("jump over the stream", "fell into the water", "jumped over the stream", "run fast before you jump"),
    ("juggle", "dropped every ball", "juggled three apples", "start with two"),
    ("tie a knot", "got tangled in the rope", "tied a strong knot", "make a loop first"),
    ("climb a tree", "slid back down", "climbed to the very top", "hold on with both hands"),
]


def learn_skill(s):
    """The hero cannot do something, gets advice, practices and succeeds."""
    c = s.cast
    e = c["e"] = make_elder(s, c["h"])
    c["skill"], c["fail"], c["win"], c["tip"] = s.pick(
        [
            k
            for k in SKILLS
            if not (k[0] == "swim" and "swim" in c["h"].skills)
            and not (k[0] == "climb a tree" and "climb" in c["h"].skills)
        ]
    )
    c["fail"] = s.fragment(c["fail"])
    s.theme = "practice"
    s.gist = s.pick(["who wanted to {skill}", "who learned to {skill}", "who could not {skill}"])
    s.title = s.pick(["{h.tag} Learns to {skill}", "The {h.noun} Who Wanted to {skill}"])
    opening(s, day=False)
    s.say(
        "More than anything, {h} wanted to {skill}",
        "But {h} could not {skill}",
        "{h} had a dream. {h.He} wanted to {skill}",
        "All the others could {skill}, but {h} could not",
    )
    s.para(0.4)
    s.say("One {weather} day, {h} tried. {h.He} {fail}", "One day, {h.he} tried to {skill}, but {h.he} {fail}")
    s.say(
        "{h.He} tried again, and again {h.he} {fail}",
        "The others laughed. {h.His} face turned red",
        '"I will never learn it!" {h} cried',
        '"It is too hard," {h.he} said',
    )
    pet(s, "{pet.call} put {pet.his} head on {h.his} knee")
    s.para(0.5)
    if e.kind == "family":
        s.say("{e} saw it and sat down beside {h.him}", '{h} went to {e}. "Can you help me?" {h.he} asked')
    else:
        s.say("{e.A} saw it and came closer", '{h} went to {e.a}. "Can you help me?" {h.he} asked')
    s.say(
        '"You must {tip}," said {e}, "and try a little every day."',
        '"I could not do it at first either," said {e}. "Just {tip}."',
        '"Try to {tip}," {e} said. "And do not give up."',
    )
    s.say(
        "So {h} practiced every [day|morning]",
        "{h} tried and tried, day after day",
        "{h} nodded and tried again the next day, and the next",
    )
    s.say(
        "On Monday {h.he} {fail}. On Tuesday it was a little better",
        "Each time it was a little better",
        "Some days were good, and some days were bad, but {h.he} did not stop",
    )
    s.para(0.5)
    s.say(
        "Then, one {weather} morning, {h} did it! {h.He} {win}",
        "At last the day came. {h} {win}",
        "After many days, {h} {win}",
    )
    s.say(
        'Everyone clapped. "Well done!" said {e}',
        '"Look at me!" {h.he} shouted. "I can {skill}!"',
        '{e} was very proud. "I knew you could do it," {e.he} said',
    )
    s.qa += [("What did {h} want to learn?", "{h.He} wanted to {skill}."), ("Who helped {h}?", "{e} helped {h.him}.")]
    ending(s)


PROJECTS = [
    ("boat", "wood", "sail to the little island", "a sail", "an old sheet"),
    ("tree house", "planks", "look over the hills", "a ladder", "a long rope"),
    ("snowman", "snow", "have a winter friend", "a nose", "a carrot"),
    ("sand castle", "sand", "win the castle contest", "a flag", "a red leaf"),
    ("swing", "rope", "fly through the air", "a seat", "a flat board"),
    ("bridge", "logs", "cross the stream", "a railing", "some strong vines"),
    ("wagon", "boards", "ride down the hill", "four wheels", "four round lids"),
    ("raft", "logs", "float on the lake", "a paddle", "a flat branch"),
    ("kite", "paper", "touch the clouds", "a tail", "some ribbons"),
    ("birdhouse", "boards", "invite the birds", "a door", "a small ring of wood"),
]


def build(s):
    """The hero and friends build something; one part is missing, and the smallest finds it."""
    c = s.cast
    f = c["f"] = make_friend(s, c["h"])
    c["g"] = make_friend(s, f, c["h"])
    c["work"], c["stuff"], c["goal"], c["part"], c["found"] = s.pick(PROJECTS)
    c["a_work"] = an(c["work"])
    s.theme = "team"
    s.gist = s.pick(["who built {a_work}", "who wanted to build {a_work}", "and {f.plain} who built {a_work}"])
    s.title = s.pick(["The {work}", "{h.tag} Builds {a_work}", "Together"])
    opening(s)
    s.say(
        '"I want to {goal}," said {h}. "I will build {a_work}!"',
        '{h} had an idea. "Let us build {a_work}," {h.he} said, "and {goal}!"',
    )
    s.say(
        "{h.He} began to [carry|collect] {stuff}, but it was hard to do alone",
        "{h.He} worked all morning, but it was too much for one",
    )
    s.say(
        'Then {f.intro} came by. "What are you doing?" {f.he} asked. "I am building {a_work}," said {h}',
        '{h.His} friend, {f.intro}, saw it. "May I help?" asked {f.the}',
    )
    s.para(0.5)
    s.say(
        "They worked side by side. {h} [carried|held] the {stuff}, and {f} put it [in place|together]",
        "Together they worked and sang. Soon the {work} was almost ready",
    )
    s.say(
        '"Something is missing," said {f}. "We need {part}."',
        "But it needed {part}, and they had nothing to make one"
        if c["part"].startswith(("a ", "an "))
        else "But it still needed {part}",
    )
    s.maybe(0.5, "They looked {spot} and {spot2}, but found nothing", '"What now?" asked {h}')
    s.say(
        'Then {g.intro} came with {found}. "Can you use this?" {g.he} asked',
        '{g.A} was watching them. "I have {found}," said {g.the}. "You may have it."'
        if not c["found"].startswith(("some", "four"))
        else '{g.A} was watching them. "I have {found}," said {g.the}',
    )
    s.say('"Yes! It is perfect!" they shouted', '"That is just what we need!" said {h}')
    pet(s, "{pet.call} jumped around them")
    s.para(0.5)
    s.say(
        "When the sun went down, the {work} was finished",
        "At last the {work} was ready. It was [wonderful|the best {work} ever|a little crooked, but strong]",
    )
    s.say(
        "The next day, all three used it to {goal}"
        if c["work"] not in ("snowman", "sand castle", "kite", "birdhouse")
        else "All three stood and looked at it with pride",
        '"We did it together," said {h}',
        "They [cheered|laughed|danced around it]",
    )
    s.qa += [
        ("What did {h} build?", "{h.He} built {a_work}."),
        ("What was missing?", "They needed {part}."),
        ("Who brought {found}?", "{g.The} brought it."),
    ]
    ending(s)


def race(s):
    """A proud rival, a race, and a stop on the way."""
    c = s.cast
    c["f"] = make_friend(s, c["h"])
    c["prize"] = s.pick(
        ["a golden cup", "a big cake", "a blue ribbon", "a basket of {food}", "a crown of flowers", "a silver medal"]
    )
    c["prize"] = s.fragment(c["prize"])
    c["to2"] = s.pick(
        [
            "to the old mill",
            "to the big rock",
            "around the lake",
            "to the top of the hill",
            "to the bridge and back",
            "to the tall pine tree",
        ]
    )
    s.theme = "proud"
    s.gist = s.pick(["who ran a race", "who wanted to win a race", "and {f.plain} in a race", "who won a race"])
    s.title = s.pick(["The Big Race", "{h.tag} and the Race"])
    opening(s, day=False)
    s.say(
        "{f.Intro} lived nearby. {f.He} was [fast|strong] and very proud",
        '{h} knew {f.a} who was very proud. "I am the fastest of all," {f.he} always said',
    )
    s.para(0.5)
    s.say(
        "One day, there was a race {to2}. The prize was {prize}",
        "One {weather} day, everyone came to see a race {to2}. The winner would get {prize}",
    )
    s.say(
        '"I will win," said {f}. "You are too slow!"',
        '"You can never beat me," {f} said to {h}',
        '{f} laughed at {h}. "Why do you even try?" {f.he} asked',
    )
    s.say('"I will do my best," said {h}', "{h} said nothing. {h.He} only smiled")
    s.say(
        "One, two, three, go! {f} ran ahead, and {h} [came last|was far behind]",
        "The race began. {f} was soon far ahead",
    )
    pet(s, "{pet.call} ran along the side")
    s.para(0.5)
    if s.chance(0.5):
        s.say(
            "But {f} was so sure that {f.he} [sat down for a nap|stopped to eat|stopped to look at {f.himself} in the water]"
        )
        s.say(
            "{h} went on, step by step, and passed {f.him}",
            "{h} did not stop. Slowly, {h.he} came closer and closer, and then {h.he} was in front",
        )
        s.say(
            "When {f} saw it, it was too late. {h} won the race and got {prize}",
            "{h} came in first! Everyone cheered, and {h.he} got {prize}",
        )
        s.say(
            '"You won," said {f} quietly. "I was too proud." {h} shared the prize with {f.him}'
            if c["prize"][2:] in ("big cake",) or "basket" in c["prize"]
            else '"I am sorry I laughed at you," said {f}. "It is all right," said {h}',
            '"I am sorry I laughed at you," said {f}. "Good race," said {h}, and they shook hands',
        )
        s.qa += [("Who won the race?", "{h} won the race.")]
    else:
        s.say(
            'Then {f} [tripped over a root|slipped in the mud|hurt {f.his} foot] and fell. "Ouch!" {f.he} cried',
            "On the way, {h} saw {f} on the ground. {f.He} had hurt {f.his} foot",
        )
        s.say(
            '{h} could win now! But {h.he} stopped. "Are you all right?" {h.he} asked',
            "{h} wanted the prize, but {h.he} stopped to help",
        )
        s.say(
            "{h} helped {f.him} up, and they walked to the end together",
            '"Hold on to me," said {h}. Step by step, they went on together',
        )
        s.say(
            "They came in last, but everyone cheered, and both of them got {prize}",
            '"You could have won," said {f}. "A friend is better than {prize}," said {h}',
        )
        s.qa += [("Why did {h} stop?", "{h.He} stopped to help {f.the}.")]
    s.qa += [("What was the prize?", "It was {prize}.")]
    ending(s, pair=True)


PLOTS = [(rescue, 1.5), (learn_skill, 1.4), (build, 1.1), (race, 1.0)]
