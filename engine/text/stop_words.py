"""Words too common to find anything by: articles, pronouns, prepositions, conjunctions, auxiliary verbs.

Chosen short: a word that may carry a question (not, will, can, first) is left in. A language that is not here
has no stop words.
"""

from __future__ import annotations

_ENGLISH = """
a an and are as at be been being but by did do does for from had has have having he her hers him his how i if in into
is it its me my of on or our ours she so such than that the their theirs them then there these they this those to too
us was we were what when where which while who whom whose why with would you your yours
"""
_GERMAN = """
aber als am an auch auf aus bei bin bis bist da das dass dein deine dem den der des dessen dich die dies diese diesem
diesen dieser dieses dir doch du durch ein eine einem einen einer eines er es euch euer für hab habe haben hat hatte
hatten hier ich ihm ihn ihnen ihr ihre ihrem ihren ihrer im in ist ja kein keine mein meine mich mir mit nach noch nun
nur ob oder sein seine seinem seinen seiner sich sie sind so über um und uns unser unsere unter vom von vor war waren
was weil wenn wer wie wir wird wo zu zum zur
"""
_FRENCH = """
à ai as au aux avait avec avez avons c ce ceci cela celle celles celui ces cet cette ceux chez ci comme d dans de des
donc du elle elles en es est et étaient était être eu eux il ils j je l la le les leur leurs lui m ma mais me mes
moi mon n ne nos notre nous on ont ou où par pas pour qu que quel quelle quelles quels qui s sa se ses si soit son sont
suis sur t ta te tes toi ton tu un une vos votre vous y
"""
_SPANISH = """
a al algo ante antes como con cual cuando de del desde donde e el ella ellas ellos en entre era eran eres es esa esas
ese eso esos esta estaba están estas este esto estos está fue fueron ha había han has hasta hay he la las le les lo los
me mi mis muy nos nosotros o os otra otro para pero por porque que quien se ser si sin sobre son su sus también te
tiene tienen tu tus u un una unas uno unos y ya yo él
"""
_ITALIAN = """
a ad agli ai al alla alle allo anche avere che chi ci come con cui da dagli dai dal dalla dalle dallo degli dei del
della delle dello di dove e ed era erano essere fra gli ha hai hanno ho i il in io l la le lei li lo loro lui ma mi mia
mie miei mio ne negli nei nel nella nelle nello noi nostra nostro o per perché più quale quando quella quelle quelli
quello questa queste questi questo se sei si sia siamo sono sta su sua sue sugli sui sul sulla sulle suo suoi ti tra tu
tua tuo un una uno vi voi è
"""
_PORTUGUESE = """
a ao aos as com como da das de dela dele deles do dos e ela elas ele eles em entre era eram essa esse esta estas este
estes está estão eu foi foram há isso isto já lhe mais mas me meu meus minha na nas no nos nossa nosso não o os ou para
pela pelas pelo pelos por quando que quem se sem ser seu seus sua suas são também te tem tinha tu um uma você vocês à
às é
"""
_DUTCH = """
aan al als bij dan dat de deze die dit doch door dus een en er geen had hadden heb hebben heeft hem het hij hoe hun ik
in is je kan mijn met mij na naar nu of om onder ons ook op over te tegen toch toen tot u uit uw van voor waar was wat
we wel werd wie wij worden wordt zal ze zich zij zijn zo
"""
_SWEDISH = """
att av de dem den denna deras dess det detta dig din ditt du där efter eller en er ett från för ha hade han hans har
hennes hon honom hur här i in inom jag kan man med mellan men mig min mitt mot när och om oss på sig sin sitt som så
till under upp ut var vara vi vid vilka vilken är över
"""
_DANISH = """
ad af alle alt at blev da de dem den denne der deres det dette dig din disse dog du efter eller en er et for fra ham
han hans har havde hende hendes her hos hun hvad hvis hvor i jeg jer kan man med mig min mod når og også om op os over
på selv sig sin som så til ud under var vi vil være
"""
_NORWEGIAN = """
av at ble da de dem den denne der deres det dette din disse du eller en er et for fra ha hadde ham han hans har henne
hennes her hos hun hva hvis hvor i jeg kan man med meg min mot når og også om opp oss over på seg sin som så til under
ut var ved vi vil være
"""
_RUSSIAN = """
а без бы был была были было быть в вам вас во вот все вы где да для до его ее если есть же за и из или им их к как ко
когда кто ли мне мы на над нам нас него нее ни но о об он она они оно от по под при про с со так там то того тоже тот
ты у уже что чтобы эта эти это этого этой этот я
"""

STOP_WORDS: dict[str, frozenset[str]] = {
    "english": frozenset(_ENGLISH.split()),
    "porter": frozenset(_ENGLISH.split()),
    "german": frozenset(_GERMAN.split()),
    "french": frozenset(_FRENCH.split()),
    "spanish": frozenset(_SPANISH.split()),
    "italian": frozenset(_ITALIAN.split()),
    "portuguese": frozenset(_PORTUGUESE.split()),
    "dutch": frozenset(_DUTCH.split()),
    "swedish": frozenset(_SWEDISH.split()),
    "danish": frozenset(_DANISH.split()),
    "norwegian": frozenset(_NORWEGIAN.split()),
    "russian": frozenset(_RUSSIAN.split()),
}
