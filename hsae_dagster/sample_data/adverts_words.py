"""What the job adverts are made of: sentences that say a planted property, boilerplate, openings, employers, cities.

Belongs here: words. Does not belong here: sentences of one occupation (`adverts_occupations`), chance, effects, tables
(`adverts`), what makes a file messy (`adverts_mess`).

The sentences of a property share its meaning and few of its words: no word stands in more than a third of them. Other
sentences use such words, too (“a competitive salary”), so that no single word stands for a property.
"""

import itertools
import re

# [six|nine] stands for either.
PROPERTIES = {
    "flexible_hours": (
        "Flexible working hours are a matter of course: you start between [six|seven|eight] and ten.",
        "Part-time at [50|60|70|80] per cent is possible as well as full-time.",
        "Thanks to flexitime you decide yourself when your working day begins and ends.",
        "On [two|three] days a week you may work at home, whenever you like.",
        "Reduced weekly hours, from [15|20|24|28] upwards, can be agreed whenever you wish.",
        "Your working time can be adapted to your family's needs.",
        "You arrange your schedule freely around core times from ten to [one|two|three].",
        "Job sharing or a four-day week: choose the part-time model that suits you.",
        "Parents may work shorter hours or finish later from home.",
        "Your weekly schedule follows your private life, with [one|two|three] free afternoons if you like.",
    ),
    "tough_tone": (
        "We only take winners who want to beat [all the others|every competitor].",
        "Second place does not count here, so bring the will to win and to dominate [others|your rivals].",
        "Only the toughest competitors survive in our team; losers leave within [two|three|six] months.",
        "You are hungry for victory, ruthless and aggressive when it matters.",
        "Be a fierce competitor who never accepts defeat and beats every [rival|opponent].",
        "We fight hard to win and expect a killer instinct from you.",
        "Losers and the weak, unable to stand a brutal fight, should stay away.",
        "Our people are predators who crush the competition.",
        "You love to beat your rivals and to leave weaker colleagues far behind.",
        "We attack, we conquer, and every champion here gives [110|120|150|200] per cent.",
    ),
    "nights_and_lifting": (
        "You work nights and weekends, and the work is physically hard.",
        "Sacks and crates of up to [20|25|30|40] kilos have to be carried by hand, also at night.",
        "Expect long nights on your feet and heavy loads on your shoulders.",
        "Regular night duty and lifting weights of [15|20|25|35] kg must not put you off.",
        "Shifts go from [nine|ten|eleven] in the evening to [five|six] in the morning and are physically demanding.",
        "You need a strong back, because heavy goods are hauled up the stairs until [late|midnight].",
        "Overnight shifts alternate with late ones, always with strenuous manual labour.",
        "Between midnight and dawn you move boxes of [20|25|30] kilos without a machine's help.",
        "Every [second|third|fourth] week you are on the night shift and lift heavy things throughout.",
        "Bodily strength and stamina for the graveyard shift are required.",
    ),
    "paid_training": (
        "We pay for your further training and give you [five|eight|ten] days off for it every year.",
        "An experienced mentor trains you on the job during the first [three|four|six] months.",
        "Newcomers learn everything in a paid training course of [four|six|eight] weeks.",
        "Courses and seminars are financed by us, up to EUR [800|1,000|1,500] a year.",
        "Career changers learn the trade from scratch, in classes and at full pay.",
        "A personal coach teaches you the job step by step in your first [five|ten|twelve] weeks.",
        "Our own academy offers workshops and seminars during paid working time.",
        "Together with a mentor you attend lessons at our expense for [two|four|six] months.",
        "We support your vocational education with [six|eight|twelve] days of study leave a year.",
        "No experience is needed: we train you, and all courses are free of charge.",
    ),
}

BOILERPLATE = (
    "We look forward to getting to know you.",
    "The salary follows the collective agreement, with a bonus in December.",
    "We pay a competitive salary from the first day on.",
    "Our offices are a five-minute walk from the main station.",
    "There is free coffee, tea and fresh fruit for everyone.",
    "Diversity matters to us, and every application is welcome.",
    "Severely disabled applicants are preferred if equally suited.",
    "We have been in business since 1974 and are run by the family.",
    "With some {staff} staff we are one of the larger employers of the region.",
    "The contract is permanent after a probation of six months.",
    "The position is limited to two years at first.",
    "You get 30 days of holiday and the afternoon of your birthday off.",
    "Parking spaces and a bicycle cellar are available.",
    "We subsidise your ticket for buses and trains.",
    "A company pension is a matter of course for us.",
    "Short lines of decision and an open door are typical of our house.",
    "Twice a year we celebrate together, in summer on the river.",
    "You bring a friendly manner and a good command of English.",
    "You are reliable and like to work with others.",
    "You react calmly and flexibly when plans change at short notice.",
    "A finished apprenticeship or a comparable qualification is what we look for.",
    "Those who have done similar work before have an advantage.",
    "We are certified according to ISO 9001 and audited every year.",
    "Our canteen cooks with products from local farms.",
    "Discounts in over 200 shops are waiting for you.",
    "Please state when you could start and what you would like to earn.",
    "The interviews take place in week {week}.",
    "Your data are deleted six months after the end of the procedure.",
    "Costs of travelling to the interview cannot be refunded.",
    "We expect a clean police record for this post.",
    "More about us can be found at www.example.org, e.g. videos and figures.",
    "You will be part of a team of {team} people from {lands} countries.",
    "A modern workplace with good light and quiet rooms is ours.",
    "The pay starts at EUR {wage} per hour, plus allowances.",
    "Dr. Keller and Ms. Brandt lead the department with a calm hand.",
    "We value honesty, respect and a good sense of humour.",
    "Sustainability guides us: our electricity comes from wind and sun.",
    "Every two years we ask all employees what could be better.",
    "A dog in the office is no problem, as long as it does not bark.",
    "You can reckon with a decision within three weeks.",
    "Free water, sports groups and a choir round things off.",
    "We regret that we cannot return paper documents.",
)

OPENINGS = (
    "{employer} is looking for {a_role} in {city}.",
    "{employer} is hiring {a_role} for its site in {city}, starting in {month}.",
    "Are you {a_role}? {employer} in {city} has a place for you.",
    "To strengthen our team in {city} we seek {a_role} as of 1 {month}.",
    "Wanted in {city}: {a_role} for {employer}.",
    "We, {employer}, have a vacancy in {city} for {a_role}.",
    "In {city}, {employer} offers a secure job as {a_role}.",
    "Join {employer} in {city} as {a_role}!",
    "Become {a_role} with {employer}, at home in {city} for three generations.",
    "Our branch in {city} needs {a_role} (all genders) from {month} on.",
)

CLOSINGS = (
    "Please send your application to jobs@example.org by {day} {month}.",
    "Apply online or by post, quoting reference {reference}.",
    "Questions are answered by {name} on 0{phone}.",
    "Have we caught your interest? Then write to {name} at {employer}.",
    "{name} is glad to receive your CV as a PDF file.",
    "Send us your papers by {day} {month} at the latest.",
    "We look forward to your letter, {employer}, {city}.",
    "Just call {name}, or drop in at our office in {city}.",
)

HEADINGS = ("Your tasks:", "What awaits you:", "About the job:", "YOUR ROLE", "THE JOB", "In short:")

CITIES = (
    *("Aldersby", "Birchford", "Castle Morton", "Dunholm", "Eastwick", "Farnley", "Great Harrow", "Holmbridge"),
    *("Iverton", "Kelsworth", "Langmere", "Marlow Cross", "Newbury Vale", "Oakhampton", "Port Ellis", "Quarrydale"),
    *("Redminster", "St. Albray", "Thornbury", "Upper Wexley", "Wadham", "Yarrowby"),
)

# An employer is a family and a form; made-up names, so that no firm is spoken of.
FAMILIES = (
    *("Abernall", "Brockhurst", "Calder", "Denholt", "Eversham", "Fenwright", "Garrow", "Hallivan", "Ingleby"),
    *("J. P. Morrow", "Kestrel", "Lindqvist", "Mandeville", "Northgate", "Ostrander", "Penhallow", "Quillan"),
    *("Rosenthorpe", "Silverlake", "Tremaine", "Underhill", "Vandermeer", "Whitcombe", "Yardley", "Zeller"),
    *("A. Bellweather", "Corvin", "Drummore"),
)
FORMS = ("{} & Sons", "{} Group", "{} Ltd.", "{} Services", "{} and Partners", "{} Holding", "{} Works")

CONTACTS = (
    *("Ms. Adeyemi", "Mr. Bauer", "Mrs. Carling", "Ms. Duarte", "Mr. Eklund", "Mrs. Faulkner", "Mr. Gray"),
    *("Ms. Hoang", "Mr. Ibsen", "Mrs. Jarvis", "T. Kowalski", "Ms. Lund"),
)
MONTHS = ("January", "March", "April", "May", "June", "August", "September", "October")

_CHOICE = re.compile(r"\[([^\]]+)\]")


def variants(pattern: str) -> tuple[str, ...]:
    """The sentences that a pattern with choices, `[six|nine]`, stands for; itself if it has none."""
    parts = _CHOICE.split(pattern)
    return tuple(
        "".join(chosen)
        for chosen in itertools.product(
            *(part.split("|") if i % 2 else (part,) for i, part in enumerate(parts)),
        )
    )
