"""Plots about friends, fears, sharing, wishes and sleep."""

from grammar import ending, make_animal, make_elder, make_friend, opening, pet


def new_friend(s):
    """The hero is lonely, meets somebody different, and they find something both like."""
    c = s.cast
    c.pop("pet", None)  # somebody with a pet is not alone
    f = c["f"] = make_friend(s, c["h"], named=0.7)
    c["odd"] = s.pick(
        [
            "so quiet",
            "so loud",
            "very shy",
            "much bigger",
            "much smaller",
            "very slow",
            "very fast",
            "from far away",
            "covered in mud",
            "not like the others",
            "all alone",
            "a little strange",
        ]
    )
    c["game"] = s.pick(
        ["hide and seek", "tag", "a counting game", "catch", "pirates", "a clapping game", "follow the leader"]
    )
    s.theme = "friend"
    s.gist = s.pick(
        ["who wanted a friend", "who was lonely", "and {f.plain}", "who met {f.plain}", "who made a new friend"]
    )
    s.title = s.pick(["A New Friend", "The {h.noun} and the {f.noun}", "{h.tag} Finds a Friend"])
    opening(s, day=False)
    s.say(
        "But {h} was [lonely|sad]. {h.He} had nobody to play with",
        "{h} wanted a friend [very much|more than anything]",
        "{h.He} played alone every day",
        "But {h.he} did not have a friend",
    )
    s.para(0.5)
    s.say(
        "One {weather} day, {h} went {p.to}. There {h.he} saw {f.intro} {spot}",
        "One day, {h} heard somebody crying {spot}. It was {f.intro}",
        "One {weather} morning, {f.intro} came {p.to}",
        "Then {f.a} came to live {p.at}",
    )
    s.say(
        "{f.He} was {odd}",
        "{f} was {odd}, and nobody wanted to play with {f.him}",
        "The others laughed at {f.him} because {f.he} was {odd}",
    )
    s.say(
        '{h} was a little afraid, but {h.he} walked closer. "Hello," {h.he} said. "I am {h.call}. What is your name?"'
        if c["h"].name and c["h"].kind != "family"
        else '{h} took a deep breath. "Hello," {h.he} said. "Do you want to play?"',
        '"Hi," said {h}. "Why are you alone?"',
        "{h} did not know what to say. Then {h.he} smiled and waved",
    )
    s.say(
        '"My name is {f.call}," said {f.the}. "I have no friends here."'
        if f.name
        else '"I have nobody to play with," said {f.the}',
        '{f} looked up and smiled. "Nobody ever says hello to me," {f.he} said',
    )
    s.para(0.4)
    s.say(
        '"Then let us play together!" said {h}',
        '"Me too," said {h}. "Do you like to play {game}?"',
        '"We can be friends," {h} said. "Do you want to play {game}?"',
    )
    s.say(
        "They played {game} all day",
        "So they played {game} and [laughed|ran] until they were tired",
        "They played {game}, and they shared some {food}",
    )
    pet(s, "{pet.call} played too")
    s.say(
        "{h} liked to {hobby}, and so did {f}",
        "{f} showed {h} how to {hobby}",
        "It did not matter that {f} was {odd}",
        "When the sun went down, they did not want to say goodbye",
    )
    s.maybe(
        0.6,
        '"Will you come back tomorrow?" asked {f}. "Yes," said {h}. "Every day!"',
        '"You are my best friend," said {h}',
        '"I am so glad I met you," {f} said',
    )
    s.qa += [("Who did {h} meet?", "{h.He} met {f.intro}.")]
    ending(s, pair=True)


def share_food(s):
    """The hero has food, a hungry one comes; the kindness returns."""
    c = s.cast
    c["f"] = make_friend(s, c["h"])
    c["back"] = s.pick(
        [
            "a warm scarf",
            "a basket of nuts",
            "a bunch of flowers",
            "a pot of honey",
            "a bag of apples",
            "a big cake",
            "a bright lantern",
            "a jar of jam",
            "a soft blanket",
        ]
    )
    s.theme = "share"
    s.gist = s.pick(
        ["who shared {h.his} {food}", "who learned to share", "who did not want to share", "and the {food}"]
    )
    s.title = s.pick(["Sharing Is Good", "{h.tag} Shares the {food}", "The {food}"])
    opening(s)
    s.say(
        "{h} had a basket full of {food}",
        "{h.He} [found|made|got] some {food}. The {food} smelled so good",
        "{h.His} mother had given {h.him} some {food} for lunch",
    )
    s.say(
        "{h.He} sat down {spot} to eat",
        '"I will eat {it} all by myself," {h.he} thought',
        "{h.He} could not wait to eat {it}",
    )
    s.para(0.5)
    s.say(
        "Then {f.intro} came by and looked at the {food}. {f.He} looked [hungry|thin and tired|cold and hungry]",
        "Just then, {h} saw {f.intro} {spot2}. {f.He} was [very |so ]hungry",
    )
    s.say(
        '"I have not eaten all day," said {f}',
        '"May I have a little bit?" asked {f}',
        '"That smells wonderful," said {f} in a small voice',
    )
    selfish = s.chance(0.5)
    if selfish:
        s.say(
            '"No, it is mine!" said {h}. {f} walked away with {f.his} head down',
            '{h} shook {h.his} head. "There is not enough," {h.he} said. {f} went away',
        )
        s.say(
            "{h} took a bite, but the {food} did not taste good. {h.He} thought of {f.the}'s sad face",
            "But then {h} felt bad. The {food} did not taste so good now",
        )
        s.say(
            '"Wait!" {h} called. "Please come back! We can share."',
            'So {h} ran after {f.him}. "I am sorry," {h.he} said. "Half of it is for you."',
        )
    else:
        s.say(
            '{h} looked at the {food}. Then {h.he} smiled. "Come, sit with me," {h.he} said',
            '"Of course," said {h}. "There is enough for two."',
            "{h} gave half of the {food} to {f}",
        )
    s.say("They ate together and [talked|laughed|told stories]", "They sat side by side and ate every last bit")
    pet(s, "{pet.call} got a little bit too")
    s.para(0.5)
    s.say(
        "The next [day|week], {h} was hungry and had nothing to eat. {f} came with {back}",
        "A few days later, somebody came to see {h.him}. It was {f} with {back}",
        "The next morning, {h} found {back} by the door. It was from {f}",
    )
    s.say(
        '"You shared with me, and now I share with you," said {f}',
        '"This is for you, because you were kind to me," {f} said',
        '"Thank you for sharing," said {f}',
    )
    s.qa += [
        ("What did {h} share?", "{h.He} shared the {food}."),
        ("Who was hungry?", "{f.The} was hungry."),
        ("What did {f.the} give {h}?", "{f.He} gave {h.him} {back}."),
    ]
    ending(s, pair=True)


FEARS = [
    (
        "the dark",
        "it was dark",
        "{f.the} was alone in a dark cave",
        "walked into the dark cave",
        "The dark was only quiet and soft",
    ),
    (
        "the water",
        "{h.he} saw deep water",
        "{f.the} was stuck on a rock in the river",
        "stepped into the cold water",
        "The water was only cold and wet",
    ),
    (
        "high places",
        "{h.he} looked down from a hill",
        "{f.the} was stuck on a high ledge",
        "climbed up, one step at a time",
        "It was not so bad up there",
    ),
    (
        "thunder",
        "there was a storm",
        "{f.the} was alone outside in the storm",
        "ran out into the storm",
        "The thunder was only a big noise",
    ),
    (
        "the big bridge",
        "{h.he} came to the river",
        "{f.the} was hurt on the other side",
        "walked over the bridge",
        "The bridge was strong and safe",
    ),
    (
        "loud noises",
        "something went boom",
        "{f.the} was caught in the noisy old mill",
        "went into the noisy mill",
        "The noise was only a wheel going around",
    ),
    (
        "the woods at night",
        "the moon came up",
        "{f.the} was lost in the woods at night",
        "walked into the woods",
        "The woods were full of friendly sounds",
    ),
]


# Who cannot be afraid of what, by species or ability.
UNAFRAID = {
    "swim": "the water the big bridge",
    "fly": "high places the big bridge",
    "climb": "high places",
    "bat": "the dark",
    "owl": "the dark the woods at night",
    "mole": "the dark",
}


def afraid(s):
    """The hero is afraid of something until a friend needs help."""
    c = s.cast
    c["f"] = make_friend(s, c["h"])
    unafraid = UNAFRAID.get(c["h"].noun, "") + "".join(UNAFRAID.get(k, "") for k in c["h"].skills)
    c["fear"], when, trouble, deed, after = s.pick([f for f in FEARS if f[0] not in unafraid])
    c["when"], c["trouble"], c["act"], c["after"] = (s.fragment(t) for t in (when, trouble, deed, after))
    s.theme = "brave"
    s.gist = s.pick(
        ["who was afraid of {fear}", "who was afraid of {fear}", "who learned to be brave", "who was scared"]
    )
    s.title = s.pick(["{h.tag} Is Brave", "Afraid of {fear}", "The Brave {h.noun}"])
    opening(s, day=False)
    s.say(
        "But {h} was afraid of {fear}",
        "There was one thing {h} did not like. {h.He} was afraid of {fear}",
        "{h} had a secret. {h.He} was afraid of {fear}",
    )
    s.say(
        "When {when}, {h.he} [hid|ran home|closed {h.his} eyes|shook like a leaf]",
        "Every time {when}, {h.he} wanted to [hide|run away]",
    )
    s.maybe(0.4, 'The others [laughed|said, "Do not be a baby!"]', '"I wish I were brave," {h.he} often said')
    s.para(0.5)
    s.say(
        'One [evening|day|night], {h} heard a cry. "Help! Help!" It was {h.his} friend, {f.intro}',
        "One [evening|night], {f.intro} called for help",
    )
    s.say("{trouble}", "{h} ran to look. {trouble}")
    s.say(
        "{h} looked around, but nobody else was there",
        '"I must get help," thought {h}, but there was no time',
        '"I cannot do it," thought {h}. {h.His} legs shook',
    )
    s.say(
        '"My friend needs me," {h} said. {h.He} took a deep breath and {act}',
        '"I am coming!" {h} called, and {h.he} {act}',
        "{h} was [very |so ]afraid, but {h.he} {act}",
    )
    pet(s, "{pet.call} went with {h.him}")
    s.para(0.4)
    s.say("{after}, and {h} was not so afraid anymore", "{h.He} went on, step by step. {after}")
    s.say(
        "{h} took {f.him} by the hand and led {f.him} home",
        '"I am here," {h} said. Together they went home',
        "{h} found {f} and helped {f.him} get home",
    )
    s.say(
        '"You are so brave!" said {f}',
        '"Thank you for coming," {f} said. "Were you not afraid?" "I was," said {h}, "but you needed me."',
        '"You saved me!" said {f}, and gave {h.him} a hug',
    )
    s.qa += [
        ("What was {h} afraid of?", "{h.He} was afraid of {fear}."),
        ("Who did {h} help?", "{h.He} helped {f.the}."),
    ]
    ending(s, pair=s.chance(0.5))


def grumpy_neighbor(s):
    """Everybody fears a grumpy neighbor; the hero finds out why."""
    c = s.cast
    f = c["f"] = make_animal(
        s,
        [c["h"]],
        named=0.3,
        pool=["bear", "wolf", "goat", "crow", "badger", "donkey", "goose", "lion", "dragon", "cat", "owl", "dog"],
    )
    c["noun2"] = f.noun
    c["why"], c["fix"] = s.pick(
        [
            ("I have a thorn in my foot", "pulled the thorn out"),
            ("my tooth hurts", "brought some herbs for the tooth"),
            ("nobody ever visits me", "stayed and talked with {f.him} all day"),
            ("my roof leaks and I am cold", "helped to fix the roof"),
            ("it is my birthday and nobody knows", "sang a birthday song"),
            ("I miss my brother", "helped {f.him} write a letter"),
            ("I cannot sleep at night", "sang a soft song"),
            ("I lost my glasses and cannot see", "found the glasses under a chair"),
        ]
    )
    c["fix"] = s.fragment(c["fix"])
    s.theme = "kind"
    s.gist = s.pick(["and a grumpy {noun2}", "who was kind to a grumpy {noun2}", "who met a grumpy {noun2}"])
    s.title = s.pick(["The Grumpy {noun2}", "{h.tag} and the Grumpy {noun2}"])
    opening(s, day=False)
    s.say(
        "Near {h.his} home lived a grumpy {noun2}[ named {f.call}|]"
        if f.name
        else "Near {h.his} home lived a grumpy {noun2}",
        "A grumpy {noun2} lived next door",
    )
    s.say(
        '"Go away!" {f.he} [shouted|growled] at everyone',
        "{f.He} never smiled. Everyone was afraid of {f.him}",
        '"Leave me alone!" {f.he} always said',
    )
    s.para(0.5)
    s.say(
        "One {weather} day, {h} [took some {food} and went to {f.his} door|made some {food} for {f.him}|knocked on {f.his} door with some {food}]",
        'One day, {h} said, "Maybe {f.the} is not bad. Maybe {f.he} is only sad." {h.He} took some {food} and went to see {f.him}',
    )
    s.say(
        '"What do you want?" asked {f}',
        '"Go away!" said {f}. But {h} did not go',
        "{f} opened the door and made an angry face",
    )
    s.say(
        '"I brought you some {food}," said {h}. "Why are you so angry?"',
        '"I want to be kind to you," {h} said. "Are you sad?"',
        '"This is for you," said {h} softly. "What is the matter?"',
    )
    s.say(
        '{f} was quiet. Then {f.he} said, "I am angry because {why}."',
        '{f} sat down and began to cry. "Oh, {why}," {f.he} said',
    )
    s.para(0.4)
    s.say("So {h} {fix}", '"I can help," said {h}, and {h.he} {fix}')
    pet(s, "{pet.call} sat down at {f.his} feet")
    s.say(
        "For the first time, {f} smiled",
        '{f} smiled a big smile. "Nobody was ever so kind to me," {f.he} said',
        '"Thank you," said {f}. {f.He} was not grumpy anymore',
    )
    s.maybe(0.6, "They ate the {food} together", "After that, {f} said good morning to everyone")
    s.qa += [
        ("Who was grumpy?", "{f.The} was grumpy."),
        ("What did {h} bring?", "{h.He} brought some {food}."),
        ("How did {h} help?", "{h.He} {fix}."),
    ]
    ending(s, pair=True)


def sleepless(s):
    """The hero cannot sleep; each visitor offers a way, one works."""
    c = s.cast
    c["f"] = make_friend(s, c["h"])
    c["e"] = make_elder(s, c["h"], family=True)
    c["try1"], c["try2"] = s.rng.sample(
        [
            "counted sheep",
            "drank a cup of warm milk",
            "turned the pillow around",
            "closed {h.his} eyes very tight",
            "lay on the other side",
            "listened to the clock",
            "counted to one hundred",
        ],
        2,
    )
    c["try1"], c["try2"] = s.fragment(c["try1"]), s.fragment(c["try2"])
    c["cure"] = s.pick(
        [
            "sang a soft song about the moon",
            "told a story about the stars",
            "sang a song about the sea",
            "told a story about a sleepy cloud",
        ]
    )
    s.theme = "rest"
    s.gist = s.pick(["who could not sleep", "who could not fall asleep", "at bedtime"])
    s.title = s.pick(["{h.tag} Cannot Sleep", "Good Night, {h.tag}", "The Sleepy Song"])
    opening(s, day=False)
    s.para(0.4)
    s.say(
        "One night, {h} could not sleep",
        "It was late, but {h} was [wide awake|not tired at all]",
        "The moon was up, and {h} lay in bed with open eyes",
    )
    s.say(
        "[The wind was loud|An owl called outside|The moon was so bright|There was too much to think about], and {h.he} could not rest",
        "{h.He} turned left and {h.he} turned right",
    )
    s.say(
        "{h} {try1}. It did not help. {h.He} {try2}. It did not help",
        "First {h.he} {try1}. Then {h.he} {try2}. But {h.he} was still awake",
    )
    s.para(0.5)
    s.say(
        "Then {h} looked out of the window and saw {f.intro}. {f.He} could not sleep either",
        'There was a small sound at the window. It was {f.intro}. "Are you awake too?" {f.he} asked',
    )
    s.say(
        '"Let us look at the stars," said {f}. So they sat together at the window',
        '"Come in," said {h}. They sat together under a warm blanket',
    )
    s.say(
        "They told each other about their day, and the night was not so long now",
        "They whispered and giggled until {e} came",
        "{e} heard them and came in",
    )
    s.say(
        "{e} {cure}", "Then {e} sat down beside the bed and {cure}", '"Hush, little ones," said {e}, and {e.he} {cure}'
    )
    pet(s, "{pet.call} was already asleep on the rug")
    s.para(0.4)
    s.say(
        "{h} [yawned|closed {h.his} eyes]. {f} [yawned|closed {f.his} eyes] too",
        "Slowly their eyes closed",
        "One yawn, two yawns, three yawns, and they were asleep",
    )
    s.say(
        '"Good night," whispered {e}',
        "And they slept until the sun came up",
        "They dreamed of [the stars|a boat on a silver sea|a garden of clouds]",
    )
    s.qa += [("Why did {h} go to the window?", "{h.He} could not sleep."), ("Who helped {h} to sleep?", "{e} {cure}.")]
    if s.chance(0.5):
        ending(s)


def wish(s):
    """One wish; the hero gives it away."""
    c = s.cast
    c["f"] = make_friend(s, c["h"])
    c["magic"], c["m"] = s.pick(
        [
            ("a tiny fairy", "the fairy"),
            ("a golden fish", "the fish"),
            ("a talking star", "the star"),
            ("a silver bird", "the bird"),
            ("a little wizard", "the wizard"),
            ("a glowing stone", "the stone"),
            ("an old lamp with a voice", "the lamp"),
        ]
    )
    c["selfish"] = s.pick(
        [
            "a mountain of cake",
            "a bag of gold",
            "a big castle",
            "a hundred toys",
            "a flying carpet",
            "a crown",
            "a pair of wings",
        ]
    )
    c["need"], c["fixed"] = s.pick(
        [
            ("was very sick", "was well again"),
            ("had a broken leg", "could run and jump again"),
            ("was lost and far from home", "was home again"),
            ("had no home", "had a warm little house"),
            ("could not see", "could see the blue sky"),
            ("was always hungry", "had a table full of food"),
            ("had lost {f.his} voice", "could sing again"),
        ]
    )
    c["need"] = s.fragment(c["need"])
    s.theme = "wish"
    s.gist = s.pick(["who got a wish", "who had one wish", "and {magic}", "who met {magic}"])
    s.title = s.pick(["One Wish", "{h.tag} and {m}", "The Magic Wish"])
    opening(s)
    s.say(
        "{spot}, {h} found {magic}",
        "There {h.he} saw something shine {spot}. It was {magic}",
        "Suddenly {h} saw {magic} {spot}",
    )
    s.say(
        '"Please help me, I am stuck," said {m}. {h} helped at once',
        '"Hello," said {m}. "You have a good heart."',
        '{h} was surprised. "Who are you?" {h.he} asked. "I am magic," said {m}',
    )
    s.say('"I will give you one wish," said {m}', '"You may make one wish," {m} said. "Only one, so think well."')
    s.para(0.5)
    s.say(
        '{h} thought and thought. "I could wish for {selfish}," {h.he} said',
        '"{selfish}!" thought {h}. "That would be fun!"',
        "{h.He} wanted {selfish}",
    )
    s.say(
        "But then {h.he} thought of {h.his} friend, {f.intro}, who {need}",
        "Then {h} remembered {f.intro}, who {need}",
        "But {h.his} friend, {f.intro}, {need}",
    )
    s.say('"I wish that {f.the} {fixed}," said {h}', '"I do not need {selfish}," {h} said. "Please help {f.the}."')
    s.say(
        "{m} [smiled|began to glow]. There was a flash of light",
        '"That is a good wish," said {m}. There was a sound like a little bell',
    )
    s.para(0.4)
    s.say("{h} ran to see {f}. It was true! {f.The} {fixed}", "When {h} came to {f}, {f.he} {fixed}")
    s.say(
        '"It is a wonder!" said {f}. {h} only smiled',
        "They [danced|hugged|laughed] for joy",
        '"You did this for me?" asked {f}. {h} nodded',
    )
    pet(s, "{pet.call} turned in circles with joy")
    s.qa += [
        ("What did {h} wish for?", "{h.He} wished that {f.the} {fixed}."),
        ("Who gave {h} the wish?", "It was {magic}."),
    ]
    ending(s, pair=s.chance(0.5))


PLOTS = [(new_friend, 1.5), (share_food, 1.3), (afraid, 1.3), (grumpy_neighbor, 1.0), (sleepless, 0.7), (wish, 1.0)]
