"""What the job adverts are made of: sentences, boilerplate, employers, cities, occupations."""

import itertools
import re
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Occupation:
    """An occupation that adverts are for.

    Attributes:
        share: mean share of women among applicants, in percent, where an advert has no planted property.
        weight: how often it is advertised, relative to others.
        duties: sentences about the work.
    """

    share: float
    weight: float
    duties: tuple[str, ...]


OCCUPATIONS = {
    "nurse": Occupation(
        69.0,
        1.4,
        (
            "You give medicine, change dressings and watch over patients after surgery.",
            "You talk with relatives and explain to them what the doctors have planned.",
            "On the ward you keep the charts of approx. 12 patients up to date.",
            "You prepare people for operations and receive them afterwards.",
            "You notice early when somebody's condition gets worse, and act.",
            "A licence as a registered nurse is required for the post.",
            "You work hand in hand with physiotherapists, doctors and social workers.",
        ),
    ),
    "nursery teacher": Occupation(
        72.0,
        1.1,
        (
            "You look after a group of 18 children between two and six years of age.",
            "You sing, paint and build with the little ones and go outdoors in any weather.",
            "You observe how each child develops and speak about it with the parents.",
            "Together with the team you prepare summer parties and trips to the woods.",
            "You comfort, settle quarrels and read aloud after lunch.",
            "State recognition as an educator is needed for this position.",
            "You help toddlers to get used to kindergarten at their own pace.",
        ),
    ),
    "receptionist": Occupation(
        64.0,
        0.9,
        (
            "You welcome visitors, answer the phone and pass messages on.",
            "You book meeting rooms and order whatever is needed in the kitchen.",
            "Incoming letters and parcels are sorted and handed out by you.",
            "You speak English fluently and make yourself understood in one more language.",
            "You are the first face that guests see when they enter the building.",
            "You keep the appointment calendar of three departments in order.",
            "At the front desk you issue badges and call taxis, e.g. for customers from abroad.",
        ),
    ),
    "sales assistant": Occupation(
        56.0,
        1.3,
        (
            "You advise customers about shoes, jackets and accessories.",
            "You refill the shelves and see to it that prices are marked correctly.",
            "At the till you stay friendly even when the queue is long.",
            "You decorate the shop windows for spring, summer and Christmas.",
            "You unpack new collections and check them against the delivery note.",
            "Returns and complaints are handled by you with a smile.",
            "You know what is in fashion and like to talk about it.",
        ),
    ),
    "accountant": Occupation(
        53.0,
        1.0,
        (
            "You post invoices, reconcile accounts and prepare the monthly closing.",
            "You file tax returns and answer questions from the auditors.",
            "You watch over payments that are due and send reminders.",
            "Budgets and forecasts are drawn up by you for the board.",
            "You know double-entry bookkeeping inside out and work with SAP.",
            "You examine travel expenses and clear up differences.",
            "You support the switch to digital receipts and archives.",
        ),
    ),
    "cook": Occupation(
        45.0,
        1.1,
        (
            "You prepare soups, sauces and fish dishes for up to 150 guests.",
            "Together with the chef you write the menu for each season.",
            "You order vegetables and meat and check their freshness on arrival.",
            "You keep the kitchen clean and follow the rules of hygiene.",
            "At lunch you run the hot counter and season to taste.",
            "You like to try out recipes, from ravioli to apple strudel.",
            "You portion the plates and see that they leave the pass on time.",
        ),
    ),
    "gardener": Occupation(
        41.0,
        0.8,
        (
            "You plant hedges, prune fruit trees and mow lawns in parks.",
            "You lay paths of natural stone and build dry walls and ponds.",
            "In spring you sow, in autumn you rake leaves and cover the beds.",
            "You recognise pests on roses and know what helps against them.",
            "You advise owners about which shrubs suit their soil.",
            "You water the greenhouse and repot several thousand seedlings.",
            "You look after mowers, saws and hedge trimmers.",
        ),
    ),
    "software developer": Occupation(
        32.0,
        1.4,
        (
            "You write services in Python and Go and review the code of others.",
            "You design interfaces and database schemas for our web platform.",
            "You find bugs, write tests and automate deployments.",
            "You discuss with product managers what should be built next.",
            "You have worked with Linux, Docker and Git for some years.",
            "You make slow queries fast and keep the documentation current.",
            "You take part in stand-ups and plan releases with four other engineers.",
        ),
    ),
    "electrician": Occupation(
        26.0,
        1.2,
        (
            "You install cables, sockets and distribution boards in new buildings.",
            "You measure circuits, look for faults and repair them.",
            "You mount solar panels and connect them to the grid.",
            "You read wiring diagrams and know the safety standards.",
            "You maintain lifts, lighting and alarm systems of our clients.",
            "You drive to building sites in a company van.",
            "You test machines before they are put into operation and write the protocol.",
        ),
    ),
    "lorry driver": Occupation(
        24.0,
        1.0,
        (
            "You drive a 40-tonne lorry on routes between our depots.",
            "You hold a class C licence and a valid driver card.",
            "You secure the freight and check tyres, lights and brakes before setting off.",
            "You deliver to supermarkets and have the papers signed.",
            "You keep to driving and rest times and fill in the logbook.",
            "You know your way around the motorways of the region.",
            "You refuel, wash the vehicle and report damage to the workshop.",
        ),
    ),
    "warehouse clerk": Occupation(
        36.0,
        1.2,
        (
            "You pick orders with a scanner and pack them for dispatch.",
            "You drive a forklift and put pallets into the right rack.",
            "You count stock and find out why figures do not match.",
            "You receive deliveries and enter them into the system.",
            "You print labels and assign parcels to the carriers.",
            "You keep aisles and ramps free and tidy.",
            "You hold a forklift licence or are willing to obtain one.",
        ),
    ),
    "security guard": Occupation(
        30.0,
        0.8,
        (
            "You check passes at the gate and walk your rounds of the premises.",
            "You watch the monitors and call the police if need be.",
            "You stay calm in arguments and settle them with words.",
            "You lock doors and windows and look after the keys.",
            "You write a report about anything unusual.",
            "You know the law on guarding and carry the permit for it.",
            "At concerts and fairs you control bags and guide the crowd.",
        ),
    ),
    "mechanical engineer": Occupation(
        29.0,
        1.0,
        (
            "You design gears and pumps with CAD and calculate their strength.",
            "You build prototypes and test them on the bench.",
            "You choose materials and compare offers from suppliers.",
            "You accompany a product from the first sketch to series production.",
            "You hold a degree in mechanical engineering or similar.",
            "You write specifications and present them to customers abroad.",
            "You analyse why bearings fail and improve the drawings.",
        ),
    ),
    "personnel officer": Occupation(
        63.0,
        0.8,
        (
            "You write references, contracts and certificates of employment.",
            "You hold interviews and look for new people on job portals.",
            "You prepare the payroll and keep personnel files.",
            "You advise managers on labour law and notice periods.",
            "You negotiate with the works council on behalf of the board.",
            "You take care of pensions, sick notes and parental leave.",
            "You organise fairs at universities and colleges.",
        ),
    ),
    "laboratory technician": Occupation(
        52.0,
        0.9,
        (
            "You analyse water and soil samples with a mass spectrometer.",
            "You prepare solutions, weigh substances and label bottles.",
            "You calibrate instruments and write down each result.",
            "You grow cell cultures and examine them under the microscope.",
            "You order chemicals and dispose of residues correctly.",
            "You follow the rules of good laboratory practice.",
            "You evaluate series of measurements and draw charts of them.",
        ),
    ),
}
