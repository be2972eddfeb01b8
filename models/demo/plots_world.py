"""Plots about the wider world: school, stage, seasons, stars, lost babies, brothers and soup."""

from grammar import ending, make_animal, make_elder, make_friend, opening, pet


def first_day(s):
    """The first day at school is frightening until lunch."""
    c = s.cast
    c.pop("pet", None)
    c["e"] = make_elder(s, c["h"], family=True)
    c["f"] = make_friend(s, c["h"], named=0.7)
    c["lost"] = s.pick(
        ["the door of the classroom", "a place to sit", "the right words", "a pencil", "the way to the garden"]
    )
    c["lesson"] = s.pick(
        [
            "counted to ten",
            "sang the song of the days",
            "drew pictures of their homes",
            "learned the letter A",
            "planted beans in cups",
        ]
    )
    s.theme = "friend"
    s.gist = s.pick(["who went to school", "who was afraid of school", "on the first day of school"])
    s.title = s.pick(["The First Day of School", "{h.tag} Goes to School"])
    opening(s, day=False)
    s.para(0.5)
    s.say(
        "One {weather} morning, it was {h.the}'s first day of school",
        "Today was a big day. It was {h.the}'s first day of school",
    )
    s.say(
        '"I do not want to go," said {h}. "What if nobody likes me?"',
        '{h.His} belly felt funny. "Can I stay home?" {h.he} asked {e}',
    )
    s.say(
        '{e} gave {h.him} a kiss. "Just be yourself," {e.he} said',
        '"Everyone is a little afraid on the first day," said {e}, and packed some {food} in {h.his} bag',
    )
    s.para(0.5)
    s.say(
        "At school, there was a lot of noise. {h} could not find {lost}",
        "The school was big and full of new faces. {h} looked for {lost} and could not find it",
    )
    s.say(
        'Then {f.intro} smiled at {h.him}. "Are you new? I can show you," {f.he} said',
        '"You can sit next to me," said a voice. It was {f.intro}',
    )
    s.say("They sat side by side and {lesson}", "Together with the others, they {lesson}")
    s.say(
        "At lunch, {h} shared {h.his} {food} with {f}",
        "In the break, they ran and played until the bell rang",
        "At lunch, {f} told such a funny joke that {h} forgot to be afraid",
    )
    s.para(0.5)
    s.say(
        'In the afternoon, {e} came. "How was it?" {e.he} asked. "Can I go again tomorrow?" said {h}',
        'When {e} came, {h} did not want to go home. "School is fun!" {h.he} said',
    )
    s.qa += [
        ("Who helped {h} at school?", "{f.The} helped {h.him}."),
        ("What did they do at school?", "They {lesson}."),
    ]
    ending(s, pair=s.chance(0.6))


def lost_baby(s):
    """A lost baby animal: three wrong homes, and the right one."""
    c = s.cast
    baby, mother, home = s.pick(
        [
            ("baby bird", "a blue bird", "in a nest above the stream"),
            ("duckling", "a white duck", "on the pond"),
            ("lamb", "a big sheep", "on the green hill"),
            ("kitten", "a gray cat", "in the old barn"),
            ("bear cub", "a brown bear", "in a warm cave"),
            ("fawn", "a gentle deer", "among the birch trees"),
            ("puppy", "a spotted dog", "behind the mill"),
            ("piglet", "a pink pig", "in a muddy yard"),
            ("calf", "a brown cow", "in the meadow"),
        ]
    )
    c["baby"], c["mother"], c["bhome"] = baby, mother, home
    kinds = s.rng.sample(
        ["hen", "goat", "horse", "frog", "owl", "rabbit", "goose", "donkey", "squirrel", "hedgehog"], 2
    )
    c["w1"], c["w2"] = kinds
    c["cry"] = s.pick(["crying softly", "shaking with cold", "all alone", "calling for its mother"])
    s.theme = "help"
    s.gist = s.pick(["who found a {baby}", "who helped a lost {baby}", "and a {baby}"])
    s.title = s.pick(["The Lost {baby}", "{h.tag} and the {baby}"])
    opening(s)
    s.say("{spot}, {h} found a {baby}. It was {cry}", "There was a sound {spot}. {h} looked and saw a {baby}, {cry}")
    s.say(
        '"Where is your mother?" asked {h}. "I do not know," said the {baby}',
        '"I lost my mother," said the {baby}. "I will help you find her," said {h}',
    )
    s.para(0.5)
    s.say(
        'They came to a {w1}. "Is this your baby?" asked {h}. "No," said the {w1}. "My baby looks like me."',
        'First they asked a {w1}. "That is not my baby," said the {w1}, "but I hope you find her."',
    )
    s.say(
        'Then they met a {w2}. "Do you know this {baby}?" asked {h}. "I saw its mother {bhome}," said the {w2}',
        'Next they asked a {w2}. "Its mother lives {bhome}," said the {w2}. "Hurry, she is looking everywhere!"',
    )
    s.say(
        "{h} carried the {baby} all the way",
        "The {baby} was tired, so {h} told it a story on the way",
        '"Not far now," said {h}',
    )
    pet(s, "{pet.call} walked close to the {baby} to keep it warm")
    s.para(0.5)
    s.say(
        'And there, {bhome}, was {mother}. "My baby!" she cried',
        'At last they saw {mother} {bhome}. The {baby} jumped for joy. "Mama!" it cried',
    )
    s.say(
        '"How can I thank you?" asked the mother. "I am happy that you are together," said {h}',
        "The mother gave {h} some {food} and a big hug",
        '"You have a kind heart," the mother said to {h}',
    )
    s.qa += [("What did {h} find?", "{h.He} found a {baby}."), ("Where was the mother?", "She was {bhome}.")]
    ending(s)


def soup(s):
    """Everybody brings one thing for the soup."""
    c = s.cast
    f = c["f"] = make_friend(s, c["h"])
    c["g"] = make_friend(s, f, c["h"])
    c["v1"], c["v2"], c["v3"] = s.rng.sample(
        [
            "a carrot",
            "an onion",
            "a handful of beans",
            "a cabbage",
            "a pinch of salt",
            "a potato",
            "a bunch of herbs",
            "a leek",
            "a cup of peas",
            "a turnip",
            "a tomato",
            "a mushroom",
        ],
        3,
    )
    s.theme = "team"
    s.gist = s.pick(["who made soup", "who cooked with friends", "and a pot of soup", "who was hungry"])
    s.title = s.pick(["The Best Soup", "A Pot of Soup"])
    opening(s, day=False)
    s.para(0.5)
    s.say(
        "One {weather} evening, {h} was hungry, but {h.he} had only {v1}",
        "One {weather} day, {h} looked in the kitchen. There was only {v1}",
    )
    s.say(
        '"That is not enough for a meal," {h.he} said. But {h.he} put a big pot of water on the fire',
        "{h} put it in a pot of hot water. It tasted like nothing",
    )
    s.say(
        'Then {f.intro} came by. "I am hungry too," {f.he} said. "But I have only {v2}."',
        '{f.Intro} smelled the fire. "I have {v2}," {f.he} said. "Can we share?"',
    )
    s.say('"Put it in!" said {h}', 'They put it in the pot. "It is better, but something is missing," said {h}')
    s.para(0.4)
    s.say(
        "Soon {g.intro} knocked. {g.He} had {v3}, and that went into the pot too",
        "Then came {g.intro} with {v3}. Into the pot it went",
    )
    s.say("They stirred and stirred. What a wonderful smell!", "The soup bubbled, and the room grew warm")
    pet(s, "{pet.call} waited next to the pot")
    s.say(
        "They sat around the table and ate until they were full",
        "All three ate two bowls each",
        '"This is the best soup in the world," said {g}',
    )
    s.say(
        '"Alone we had almost nothing," said {h}. "Together we have a feast!"',
        '"Let us do this every week," said {f}',
        "And there was still some left for the next day",
    )
    s.qa += [("What did {h} have?", "{h.He} had only {v1}."), ("What did {f.the} bring?", "{f.He} brought {v2}.")]
    ending(s)


def fallen_star(s):
    """A star has fallen; the hero brings it back to the sky."""
    c = s.cast
    c["f"] = make_friend(s, c["h"], need="fly")
    c["why"] = s.pick(
        [
            "I danced too wildly",
            "I leaned down to see the flowers",
            "I fell asleep",
            "I wanted to hear the music",
            "a cloud pushed me",
        ]
    )
    c["idea"], c["done"] = s.pick(
        [
            ("climb the highest hill", "climbed the highest hill"),
            ("stand on the old tower", "went up the old tower"),
            ("build a tower of boxes", "built a tower of boxes"),
        ]
    )
    s.theme = "wonder"
    s.gist = s.pick(["who found a star", "who helped a star", "and a little star", "and a fallen star"])
    s.title = s.pick(["The Fallen Star", "{h.tag} and the Star"])
    opening(s, day=False)
    s.para(0.5)
    s.say("One night, {h} saw a light fall from the sky", "One clear night, something bright fell down {p.at}")
    s.say("{h.He} ran to look. {spot} lay a little star", "{h} went out and found a tiny star {spot}")
    s.say(
        '"Please help me," said the star. "{why}, and I fell down."',
        '"What happened?" asked {h}. "{why}," the star said, "and then I fell."',
    )
    s.say(
        '"If I am not back before morning, my light will go out," said the star',
        "The star was getting cold, and its light was weak",
    )
    s.para(0.5)
    s.say(
        '{h} put the star in {h.his} bag. "I will {idea}," {h.he} said',
        '"I will {idea}," said {h}, and {h.he} took the star in {h.his} arms',
    )
    s.say("{h.He} {done}, but the sky was still too high", "So {h} {done} and reached up, but it was not enough")
    s.say(
        'Then {f.intro} came flying by. "Let me help," {f.he} said',
        "{h} called as loud as {h.he} could. {f.Intro} heard it and flew over",
    )
    s.say(
        "{f} took the star and flew up, up, up, until it was back in its place",
        "{f} carried the star higher and higher and set it gently in the sky",
    )
    pet(s, "{pet.call} watched with big eyes")
    s.para(0.4)
    s.say(
        "The star [blinked|sparkled] to say thank you",
        "Now it shone brighter than all the others",
        "Every night after that, the star blinked at {h}",
    )
    s.qa += [
        ("What did {h} find?", "{h.He} found a little star."),
        ("Who flew up with the star?", "{f.The} flew up with it."),
    ]
    ending(s)


def jealous(s):
    """A new baby in the family, and nobody has time."""
    c = s.cast
    c["e"] = make_elder(s, c["h"], family=True)
    c["sib"] = s.pick(["brother", "sister"])
    c["it"], c["its"] = ("him", "his") if c["sib"] == "brother" else ("her", "her")
    c["act"] = s.pick(
        [
            "made a funny face",
            "sang a little song",
            "hid behind a blanket and said boo",
            "danced around the bed",
            "made animal sounds",
        ]
    )
    s.theme = "kind"
    s.gist = s.pick(["who got a baby {sib}", "and a new baby {sib}", "who was jealous"])
    s.title = s.pick(["The New Baby", "{h.tag} and the Baby"])
    opening(s, day=False)
    s.para(0.5)
    s.say(
        "One day, a baby {sib} came into the family",
        'One {weather} morning, {e} said, "Look, this is your new baby {sib}!"',
    )
    s.say(
        "The baby was small and loud. It cried all day and all night",
        "Everyone looked at the baby. Nobody looked at {h}",
        '"It cannot even play," {h} said',
    )
    s.say(
        '"Will you read to me?" asked {h}. "Not now," said {e}. "The baby is hungry."',
        '"Come and play with me," said {h}. But {e} was too tired',
    )
    s.say(
        "{h} felt sad and angry. {h.He} went outside and kicked a stone",
        '{h} hid under the table. "Nobody loves me anymore," {h.he} thought',
    )
    pet(s, "Only {pet.call} came and lay down beside {h.him}")
    s.para(0.5)
    s.say(
        "That night, the baby cried and cried. {e} was so tired",
        "Later, the baby cried again, and {e} did not know what to do",
    )
    s.say("{h} went to the little bed and {act}", "{h} had an idea. {h.He} {act}")
    s.say(
        "The baby stopped crying. Then it laughed! It was the very first laugh",
        "The baby looked at {h.him} with big eyes, and then it smiled",
    )
    s.para(0.4)
    s.say(
        '"Only you can do that," said {e}, and hugged {h.him}. "There is enough love for both of you."',
        '"You are the best big {big} in the world," said {e}'.replace(
            "{big}", "sister" if c["h"].gender == "f" else "brother"
        ),
    )
    s.say(
        '{h} held {its} tiny hand. "I will teach you to play," {h.he} said',
        "After that, {h} sang for the baby every night",
    )
    s.qa += [
        ("Who came into the family?", "A baby {sib} came into the family."),
        ("How did {h} make the baby laugh?", "{h.He} {act}."),
    ]
    ending(s)


def stage(s):
    """The show must go on, though the hero is shy."""
    c = s.cast
    f = c["f"] = make_friend(s, c["h"])
    c["part"], c["did"] = s.pick(
        [
            ("sing a song", "sang"),
            ("play the flute", "played"),
            ("tell a poem", "said the poem"),
            ("dance", "danced"),
            ("play the moon", "played the moon"),
            ("do magic tricks", "did the tricks"),
        ]
    )
    c["slip"] = s.pick(
        ["forgot the first word", "dropped {h.his} hat", "tripped on the step", "could not make a sound"]
    )
    c["slip"] = s.fragment(c["slip"])
    s.theme = "brave"
    s.gist = s.pick(["who was shy", "on a stage", "who had to {part}", "who was in a show"])
    s.title = s.pick(["The Big Show", "{h.tag} on the Stage"])
    opening(s, day=False)
    s.para(0.5)
    s.say(
        "In a week, there would be a big show {p.at}. {h} was going to {part}",
        'Everyone was getting ready for the summer show. "You can {part}," they told {h}',
    )
    s.say(
        'But {h} was shy. "Everyone will look at me," {h.he} thought',
        '"What if I make a mistake?" {h} asked {h.his} friend, {f.intro}',
    )
    if not f.mentioned:
        s.say("{h.His} friend, {f.intro}, saw that {h.he} was afraid")
    s.say(
        '"Look only at me," said {f}. "I will sit in the first row."',
        '"I will be there," {f} said. "If you are afraid, think of something funny."',
    )
    s.say("They practiced every day", "{h} practiced in front of a mirror, and {f} clapped")
    s.para(0.5)
    s.say(
        "Then the evening came. The lights went on, and {h} walked out on the stage",
        "At last it was time. {h} stood on the stage with shaking knees",
    )
    s.say("First {h.he} {slip}. Somebody laughed", "{h.He} {slip}, and it was very quiet")
    pet(s, "{pet.call} made a happy sound in the back")
    s.say(
        "Then {h} saw {f} in the first row. {f} smiled and nodded",
        "But {h} looked at {f}, and {f.he} made such a funny face that {h} had to smile",
    )
    s.say(
        "{h} took a deep breath and began again. {h.He} {did}, better than ever before",
        "So {h.he} started again, and this time {h.he} {did} without any mistake",
    )
    s.para(0.4)
    s.say('Everyone clapped and shouted, "Bravo!"', "The people stood up and clapped. {h} [bowed|blushed]")
    s.maybe(0.6, '"I did it because you were there," {h} told {f}', '"Can I do it again tomorrow?" {h} asked')
    s.qa += [
        ("What was {h} going to do?", "{h.He} was going to {part}."),
        ("Who sat in the first row?", "{f.The} sat in the first row."),
    ]
    ending(s, pair=s.chance(0.4))


def goodbye(s):
    """A friend leaves for the winter and comes back in spring."""
    c = s.cast
    c["f"] = make_animal(
        s, [c["h"]], need="fly", named=0.7, pool=["bird", "duck", "swan", "goose", "butterfly", "parrot", "crow"]
    )
    c["keep"] = s.pick(["a white feather", "a round stone", "a dry flower", "a little drawing", "a red leaf"])
    c["kept"] = c["keep"][2:]
    s.theme = "miss"
    s.gist = s.pick(["who said goodbye", "who missed a friend", "and {f.plain} who flew away", "and a long winter"])
    s.title = s.pick(["A Friend Comes Back", "The Long Winter", "Goodbye, {f.tag}"])
    opening(s, day=False)
    s.say(
        "All summer, {h} played with {h.his} best friend, {f.intro}",
        "{h} had a best friend, {f.intro}. They did everything together",
    )
    s.para(0.5)
    s.say(
        'But when the leaves turned red, {f} was quiet. "I must fly south," {f.he} said. "It is too cold for me here."',
        'One cold morning, {f} said, "Winter is coming. I have to fly away."',
    )
    s.say(
        '"Please do not go," said {h}. "I will miss you."', '{h} began to cry. "Will you ever come back?" {h.he} asked'
    )
    s.say(
        '{f} gave {h.him} {keep}. "Keep it until spring," {f.he} said',
        '"I will come back in spring," said {f}, and gave {h.him} {keep}',
    )
    s.say("Then {f} flew up and away, until {f.he} was only a dot in the sky")
    s.para(0.5)
    s.say(
        "The winter was long. Every night, {h} looked at the {kept} and thought of {f}",
        "Snow fell. {h} put the {kept} next to {h.his} bed and counted the days",
    )
    pet(s, "{pet.call} kept {h.him} warm")
    s.say(
        "{h.He} learned to {hobby}, and that made the days shorter",
        "Some days {h.he} was sad. Some days {h.he} made new plans for spring",
    )
    s.para(0.5)
    s.say("At last the snow melted, and the first flowers opened", "Then one morning, the air was warm and sweet")
    s.say(
        '{h} heard a voice high above. "I am back!" It was {f}',
        'Somebody landed right in front of {h}. "Did you keep it?" asked {f}. {h} held up the {kept}',
    )
    s.say("They hugged for a long time", '"You kept your word!" said {h}', "They laughed and talked until night")
    s.qa += [
        ("Who flew away?", "{f.The} flew away for the winter."),
        ("What did {f.the} give {h}?", "{f.He} gave {h.him} {keep}."),
    ]
    ending(s, pair=True)


PLOTS = [
    (first_day, 0.8),
    (lost_baby, 1.0),
    (soup, 0.8),
    (fallen_star, 1.0),
    (jealous, 0.7),
    (stage, 0.8),
    (goodbye, 0.9),
]
