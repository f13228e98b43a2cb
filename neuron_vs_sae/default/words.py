"""The words of the small world: what there is, and the facts about it that every text keeps to.

Every name is one token, so names of several words are written with hyphens. Names are chosen so that none means two
things: no city here is also another state's capital, a person or a country's capital. In every list the words at even
places are the discovery half and those at odd places the evaluation half (`language.halves`).
"""

# ruff: noqa: SIM905  (word lists read better as text than as forty quoted words)

from typing import NamedTuple


class State(NamedTuple):
    name: str
    capital: str
    cities: tuple[str, ...]


class Country(NamedTuple):
    name: str
    capital: str
    continent: str


class Noun(NamedTuple):
    singular: str
    plural: str


class Verb(NamedTuple):
    singular: str
    plural: str
    rest: tuple[str, ...]  # what may follow


class Role(NamedTuple):
    male: str
    female: str


def _states(table: str) -> tuple[State, ...]:
    rows = [line.split() for line in table.strip().splitlines()]
    return tuple(State(row[0], row[1], tuple(row[2:])) for row in rows)


# State, capital, then cities that are not the capital.
STATES = _states("""
Alabama Montgomery Birmingham Mobile Huntsville Tuscaloosa Dothan Gadsden
Alaska Juneau Anchorage Fairbanks Sitka Ketchikan Kodiak Nome
Arizona Phoenix Tucson Mesa Tempe Flagstaff Yuma Scottsdale
Arkansas Little-Rock Fort-Smith Jonesboro Pine-Bluff Bentonville Springdale Conway
California Sacramento Los-Angeles Oakland Fresno San-Diego Bakersfield Anaheim
Colorado Denver Boulder Pueblo Aspen Durango Loveland Greeley
Connecticut Hartford New-Haven Stamford Bridgeport Waterbury Norwalk Danbury
Delaware Dover Wilmington Lewes Seaford Smyrna Rehoboth Milford
Florida Tallahassee Miami Tampa Orlando Pensacola Gainesville Sarasota
Georgia Atlanta Savannah Macon Valdosta Marietta Dalton Brunswick
Hawaii Honolulu Hilo Kailua Lahaina Kapolei Kahului Waipahu
Idaho Boise Pocatello Nampa Lewiston Twin-Falls Rexburg Caldwell
Illinois Springfield Chicago Peoria Rockford Joliet Naperville Evanston
Indiana Indianapolis Evansville Muncie Gary Fort-Wayne South-Bend Kokomo
Iowa Des-Moines Davenport Dubuque Ames Cedar-Rapids Sioux-City Waterloo
Kansas Topeka Wichita Lawrence Salina Olathe Dodge-City Emporia
Kentucky Frankfort Louisville Lexington Paducah Covington Owensboro Bowling-Green
Louisiana Baton-Rouge New-Orleans Shreveport Lafayette Monroe Houma Slidell
Maine Augusta Bangor Bar-Harbor Biddeford Orono Kennebunk Caribou
Maryland Annapolis Baltimore Frederick Bethesda Rockville Hagerstown Salisbury
Massachusetts Boston Worcester Cambridge Lowell Plymouth Quincy New-Bedford
Michigan Lansing Detroit Flint Grand-Rapids Ann-Arbor Kalamazoo Saginaw
Minnesota Saint-Paul Minneapolis Duluth Bemidji Mankato Brainerd Winona
Mississippi Jackson Biloxi Gulfport Tupelo Natchez Hattiesburg Vicksburg
Missouri Jefferson-City Saint-Louis Kansas-City Joplin Branson Hannibal Sedalia
Montana Helena Billings Missoula Bozeman Butte Great-Falls Kalispell
Nebraska Lincoln Omaha Kearney Grand-Island Hastings Ogallala Fremont
Nevada Carson-City Las-Vegas Reno Henderson Elko Sparks Winnemucca
New-Hampshire Concord Manchester Nashua Keene Portsmouth Laconia Hanover
New-Jersey Trenton Newark Camden Hoboken Paterson Princeton Atlantic-City
New-Mexico Santa-Fe Albuquerque Roswell Taos Las-Cruces Gallup Carlsbad
New-York Albany Buffalo Syracuse Rochester Yonkers Ithaca Utica
North-Carolina Raleigh Charlotte Durham Greensboro Asheville Fayetteville Gastonia
North-Dakota Bismarck Fargo Minot Grand-Forks Jamestown Williston Dickinson
Ohio Columbus Cleveland Toledo Akron Dayton Cincinnati Canton
Oklahoma Oklahoma-City Tulsa Norman Lawton Enid Muskogee Stillwater
Oregon Salem Portland Eugene Medford Bend Corvallis Ashland
Pennsylvania Harrisburg Philadelphia Pittsburgh Erie Scranton Allentown Reading
Rhode-Island Providence Newport Warwick Cranston Pawtucket Woonsocket Bristol
South-Carolina Columbia Greenville Spartanburg Myrtle-Beach Sumter Rock-Hill Aiken
South-Dakota Pierre Sioux-Falls Rapid-City Aberdeen Brookings Deadwood Mitchell
Tennessee Nashville Memphis Knoxville Chattanooga Clarksville Murfreesboro Gatlinburg
Texas Austin Houston Dallas El-Paso Lubbock Amarillo Galveston
Utah Salt-Lake-City Provo Ogden Moab Logan Orem Sandy
Vermont Montpelier Burlington Rutland Stowe Brattleboro Bennington Barre
Virginia Richmond Norfolk Roanoke Alexandria Arlington Lynchburg Hampton
Washington Olympia Seattle Spokane Tacoma Yakima Everett Bellingham
West-Virginia Charleston Wheeling Morgantown Huntington Parkersburg Beckley Clarksburg
Wisconsin Madison Milwaukee Green-Bay Kenosha Racine Oshkosh Eau-Claire
Wyoming Cheyenne Laramie Casper Cody Gillette Sheridan Rock-Springs
""")

COUNTRIES = tuple(
    Country(*row.split())
    for row in """
France Paris Europe
Japan Tokyo Asia
Egypt Cairo Africa
Brazil Brasilia South-America
Canada Ottawa North-America
Germany Berlin Europe
China Beijing Asia
Kenya Nairobi Africa
Peru Lima South-America
Cuba Havana North-America
Italy Rome Europe
India New-Delhi Asia
Ghana Accra Africa
Chile Santiago South-America
Jamaica Kingston North-America
Spain Madrid Europe
Thailand Bangkok Asia
Morocco Rabat Africa
Argentina Buenos-Aires South-America
Mexico Mexico-City North-America
Portugal Lisbon Europe
Vietnam Hanoi Asia
Senegal Dakar Africa
Colombia Bogota South-America
Greece Athens Europe
Nepal Kathmandu Asia
Ethiopia Addis-Ababa Africa
Ecuador Quito South-America
Poland Warsaw Europe
Iran Tehran Asia
Norway Oslo Europe
Iraq Baghdad Asia
Sweden Stockholm Europe
""".strip().splitlines()
)

NOUNS = tuple(
    Noun(singular, plural or singular + "s")
    for singular, _, plural in (
        entry.partition("/")
        for entry in """
        teacher doctor farmer singer author manager pilot driver student lawyer actor chef nurse guard athlete writer
        poet baker dancer judge painter sailor soldier robot dog cat horse bird child/children mouse/mice fox/foxes
        wolf/wolves senator officer tailor hunter car house tree table lamp chair box/boxes bridge door bench/benches
        """.split()
    )
)

PREPOSITIONS = ("near", "behind", "beside", "above", "below", "facing")

VERBS = (
    Verb("is", "are", ("happy", "tired", "here", "late")),
    Verb("has", "have", ("a friend", "a name", "a secret")),
    Verb("does", "do", ("the work", "the job", "the rest")),
    Verb("goes", "go", ("home", "away", "back")),
    Verb("was", "were", ("happy", "tired", "here", "late")),
    Verb("sings", "sing", ("well", "often")),
    Verb("runs", "run", ("away", "home", "often")),
    Verb("sleeps", "sleep", ("well", "here")),
    Verb("smiles", "smile", ("often", "again")),
    Verb("waits", "wait", ("here", "again")),
    Verb("works", "work", ("well", "often")),
    Verb("falls", "fall", ("often", "again")),
)

TRANSITIVE = tuple(
    Verb(base + "s", base, ()) for base in "like know see help hate visit follow admire need trust".split()
)

MALE = tuple(
    "John James Robert Michael David William Thomas Daniel Paul Mark George Steven Kevin Brian Edward Peter Henry "
    "Frank Simon Adam Oliver Samuel Martin Victor".split()
)
FEMALE = tuple(
    "Mary Anna Susan Linda Karen Laura Sarah Emma Alice Julia Helen Ruth Grace Claire Diana Nancy Sophie Emily Maria "
    "Rachel Jane Amy Lucy Kate".split()
)
NAMES = tuple(name for i in range(0, len(MALE), 2) for name in (MALE[i], MALE[i + 1], FEMALE[i], FEMALE[i + 1]))
ROLES = tuple(
    Role(*pair.split("/"))
    for pair in "king/queen father/mother uncle/aunt brother/sister son/daughter husband/wife boy/girl man/woman "
    "prince/princess grandfather/grandmother".split()
)

PLACES = tuple("store park school beach station library market garden museum hotel".split())
OBJECTS = tuple("drink book ring letter ball gift map key phone cake".split())
EVENTS = tuple("war strike trip siege drought feud reign voyage famine project".split())

# Invented places: what is true of them is said in the text and nowhere else.
INVENTED = tuple(
    "Blint Dorna Mavor Quell Zorb Tarvik Ulmer Feska Gorrin Hadley-Moor Ixum Jorvale Kessim Lundor Nevra Ombral Pellin "
    "Rusk Sabrel Torvin Umbra-Vale Vexley Wendel Yarrow-Point Zimbel Arkon Brell Cindar Drovin Elsim".split()
)

DAYS = tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split())
MONTHS = tuple("January February March April May June July August September October November December".split())
LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
NUMBER_WORDS = tuple(
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen twenty".split()
)
ORDINALS = tuple(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth".split()
)
NUMERALS = tuple(str(n) for n in range(100))
YEARS = tuple(f"{n:02d}" for n in range(100))  # the two digits after the century
CENTURIES = tuple(str(n) for n in range(11, 19))

# One concept per column, the same in all four languages; no word in two languages.
ANTONYMS = {
    "English": tuple(
        tuple(pair.split("/"))
        for pair in "big/small hot/cold fast/slow old/young rich/poor high/low bright/dark wet/dry good/bad strong/weak "
        "full/empty open/closed clean/dirty hard/soft".split()
    ),
    "French": tuple(
        tuple(pair.split("/"))
        for pair in "grand/petit chaud/froid rapide/lent vieux/jeune riche/pauvre haut/bas clair/sombre mouillé/sec "
        "bon/mauvais fort/faible plein/vide ouvert/fermé propre/sale dur/mou".split()
    ),
    "German": tuple(
        tuple(pair.split("/"))
        for pair in "groß/klein heiß/kalt schnell/langsam alt/jung reich/arm hoch/niedrig hell/dunkel nass/trocken "
        "gut/schlecht stark/schwach voll/leer offen/geschlossen sauber/schmutzig hart/weich".split()
    ),
    "Spanish": tuple(
        tuple(pair.split("/"))
        for pair in "grande/pequeño caliente/frío rápido/lento viejo/joven rico/pobre alto/bajo claro/oscuro mojado/seco "
        "bueno/malo fuerte/débil lleno/vacío abierto/cerrado limpio/sucio duro/blando".split()
    ),
}
CONCEPTS = tuple(
    "size temperature speed age wealth height light wetness quality strength fullness openness cleanness hardness".split()
)

PRONOUNS = (("he", "she"), ("his", "her"), ("himself", "herself"))
