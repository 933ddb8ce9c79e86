"""The occupations of the job adverts: how often they are advertised, who applies, and what adverts say of the work.

Belongs here: sentences that only one occupation has. Does not belong here: what any advert may say (`adverts_words`),
or chance (`adverts`).
"""

from dataclasses import dataclass


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
