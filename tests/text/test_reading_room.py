"""Reports in the words of reading rooms: contrasts, abbreviations with full stops, lists, parts, malformed captions."""

import pytest

from textray.records import ZoneState
from textray.text.zones import parse

DIGIT = {ZoneState.PRESENT: "1", ZoneState.ABSENT: "-", ZoneState.UNMENTIONED: "."}

# The patient's right, then the left: 1 present, - absent, . unmentioned. The answers were decided before any was read.
CONTRASTS = """\
--- ..1: Right lung is clear, not so the left base
--- 111: The right lung is clear, the left is not | the right lung is clear, the left one is not
--- 111: clear on the right but not the left | clear on the right but not on the left
--- 111: Lungs are clear on the right but not on the left. | Right lung clear; left not.
--- 111: Clear on the right, not clear on the left | right clear, left isn't
--1 ...: the upper and middle right lung are clear, the lower is not
-.1 ...: Right apex clear, right base not
..- ..-: No opacity in the right base, nor in the left | no opacity in the right base, not in the left either
..- ..1: right lower zone is clear, left is not | The right lower zone is clear, the left is not.
..- ..1: right lower zone clear, left not | right base is clear but the left is not
..- ..1: Lower zone clear on the right, not on the left | The right base is clear while the left base is not
..- ..1: The right base is clear, while the left base isn't. | No opacity in the right base, but in the left base
..- ..1: No opacity in the right base, but there is in the left | right base spared, left not
..- ..1: right base opacity has resolved, left has not | Right basal opacity resolved but not the left
..- ..1: The left lower zone is not clear, the right is
..1 ..-: Opacity in the right lower zone, not in the left | opacity in the right base, not in the left base
..1 ..-: Opacity in the right base; not in the left. | right base is affected, left is not
..1 ..-: The right base is involved but not the left | right base abnormal, left not | right base not clear, left is
..1 ..-: The right base is not clear, the left is.
--- ---: Clear lungs. Heart is not enlarged. Left hilum is not. | The lungs are clear and the heart is not.
--- ---: Lungs are clear, not hyperinflated | Lungs clear. No eff., no PTX. | Lungs ok | Neither lung is abnormal
--- ---: Neither base nor apex shows opacity; lungs clear | No prob. pneumonia
--- 111: Right lung clear, left lung is not clear
--1 ---: The lungs are clear. The right base is not.
--1 --1: Mod. bibasal atelectasis. Otherwise nml.
-.. 1..: Right apex is clear whereas left is not
..- ..-: No opacity in the right base. Not in the left base. | RLL is clear, as is LLL
..- ..-: RLL is clear, and so is the LLL | RLL is clear, so too the LLL
..- ...: Not pneumonia in RLL
..- ..1: Right base clear, left base is not clear | The right base has cleared; the left has not.
..- ..1: RLL has cleared, LLL has not | Right base is normal; that on the left is not. | lower zone clear on R, not L
... ---: The left lung is clear. The right ribs are not. | Left lung clear; right lung not fully imaged
..1 ---: Left lung clear, RLL is opac.
..1 ..-: Right base opacity. Not on the left base. | RLL has not cleared, LLL has | RLZ opacity, not LLZ
..1 ..-: opacity in right but not left base | opacity in right base but left base is ok
..1 ..-: R base still opacified, L no longer | lower zone opacity on R, not L
..1 ...: Patient ok. RLL opacity. | RLZ opacity, not mass | RLL pna, poss. abscess
..1 ..1: RLL has not cleared, nor has LLL | Min. b/l basal atelect.
"""
CAPTIONS = """\
... ..1: bilateral pulmonary infection, two infected areas, lower left lung and lower left lung.
... ..1: bilateral pulmonary infection, lower left lung and lower left lung
... 1.1: Bilateral pulmonary infection, three infected areas, upper lower left lung and lower left lung
..1 ..1: Bilateral pulmonary infection in the lower zones
1.. ..1: bilateral pulmonary infection, upper right lung and lower left lung
111 111: bilateral pulmonary infection | bilateral pulmonary infection, two infected areas
111 111: bilateral pulmonary infection, worse in the left lower zone
"""
ROOM = """\
--- ---: s/p lobectomy R. No focal consolidation.
--- ---: INDICATION: ?RLL pneumonia FINDINGS: Lungs are free of consolidation. IMPRESSION: no acute disease
--- ---: Neither lung shows consolidation nor effusion. | No evidence of pneumonia in either lung; hila normal.
--- ---: Lungs are without evidence of focal airspace disease. | COPD changes. No focal consolidation or effusion
--- ---: Lt. costophrenic angle blunted. Lungs otherwise clear.
--- ---: Post-op. changes RUL, s/p lobectomy; remaining lungs clear | r/o PE. Lungs clr b/l.
--- ---: Lungs: no consolidation, nodule, or mass. Pleura: small R effusion. | No infil. or eff. Lungs clr.
--- ---: No acute abn. of the lungs | pulm. vasc. normal, lungs clear | Chest neg. for pna. | Lungs neg.
--- ---: No evid. of pna | Clear lungs b/l. | No focal lung lesion. | No focal consolidation, pleural effusion or PTX.
--- ---: Clear lungs. Normal heart. | Rt lung: nil. Lt lung: nil. | lungs r clear
--- ---: Neither consolidation nor effusion is seen in the lungs. | no infective focus in either lung field
--- ---: Lung fields clear | no active disease | CHEST NEG.
--- --1: Bilat infiltrates have cleared except LLL.
--- ...: no R-sided opac.
--- ..1: No consolidation nor collapse in the R lung; L base hazy. | Rt lung clear, Lt LZ opacity w/ air bronchograms.
--- ..1: R: clear. L: lower zone opacity. | The R lung is clr, L base with consol.
--- ..1: The R lung is clear, L base w/ consol. and small eff.
--- 1--: IMPRESSION: No acute cardiopulm. process. Old granuloma in the LUL.
--- 111: R lung nml, L lung abnl
--1 ---: lungs clear bilat. except R base | Lungs clear apart from the RLZ.
--1 ---: Opacity R base only; lungs otherwise clear
--1 --1: Streaky bibasilar opacities unchanged from prior; no new focal consolidation.
--1 --1: mild b/l basal atelectasis, otherwise NAD | Increased markings both bases, no focal consolidation
--1 --1: Bibasal atelect., lungs otherwise clr
-.. ...: RUL clear of infil.
-.. ..1: No RUL disease, LLL opacity +
-.. 1..: Rt apical opacity cleared since prior, lt unchanged
-.1 -.1: Bilateral lower zone ground glass, R more than L, apices spared. | Bibasilar airspace dz, L>R. Apices clr.
-.1 ..1: L>R bibasilar atelectasis, RUL clear
-1- -1-: Bilateral perihilar opacities with apical and basal sparing
-11 ---: RML and RLL pneumonia; RUL and L lung clear
-11 -11: Upper zones: clear. Mid zones: perihilar haze. Lower zones: bibasal opacities.
-11 -11: Diffuse b/l airspace opacities with apical sparing | diffuse opacities with upper lobe sparing
.-1 ..1: 1) Bibasal atelectasis 2) RML clear
..- ..-: No opacity in the RLZ or LLZ. | Previously seen LLL infiltrate no longer evident; RLL infiltrate cleared.
..- ..-: Neither RLL nor LLL show opacity. | Bases clear. | no opacity in either lower zone
..- ...: No PNA in RLL | RLL pna has resolved completely. | previous RLL pneumonia has resolved
..- ...: Right CP angle is clear | No infil. RLL | No infil. RLL.
..- ..1: FINDINGS: RLL opacity has cleared. LLL opacity persists. IMPRESSION: Persistent LLL pneumonia.
..- ..1: R base clr, L base not | RLL infil. gone, LLL infil. stable | R base: no opacity. L base: opacity.
..- ..1: clear R base, L base not clear
..- 1..: COMPARISON: CXR 1/2/20. FINDINGS: Interval clearing of RLL pneumonia. New LUZ nodule.
... ...: ?pneumonia RLL | Post-op. changes R hilum | Elevated R hemidiaphragm | L PICC tip in SVC. R IJ line.
... ..1: h/o RUL TB. Now LLL airspace opacity. | LLL opacity, c/w pneumonia, resolving
... ..1: Lt lower lobe consol. w/o eff. | cannot r/o LLL pna | Query LLL collapse. LLZ opacity is seen.
... ..1: Lt basal atelectasis, no change since 3/4. | no longer RLL... LLL opacity now
... ..1: retrocardiac LLL consolidation | LLL consolidation has progressed; RLL unremarkable? no comment
... ..1: No eff. Left base opac. | No eff. LLL consol. No PTX. | No eff. LLL consol. noted
... .1.: lingular atelectasis
... 1..: Fibrotic chgs LUL; old TB? | LUZ cavity, not seen on prior
... 11.: LUL/lingular infil.
... 111: Hx of PNA. Left lung opacity.
..1 ---: Left lung is free of infiltrate, right has LZ changes. | Consoldation in the RLL, L lung clear
..1 ---: Infiltrate rt lower lobe, lt lung normal | L clear. R base opac. | infilt. rt. base; lt. lung unremarkable.
..1 ---: Consolidation RLZ. Left lung appears clear. | R LZ consol., L lung clear, no eff. | RLL: opacity; L lung: nil
..1 ..-: Persistent RLL consolidation, unchanged from prior. LLL consolidation has cleared.
..1 ..-: Basal atelectasis R; L base ok | RLL opac. persists, LLL opac. resolved | Opacity R base. L base nml.
..1 ..-: R base: consol. L base: clr. | R base opacified but L base is not opacified | RLZ +ve, LLZ -ve
..1 ..-: consolidation of the right base and not of the left
..1 ..-: The left base, unlike the right, is clear. Opacity in the right base. | Opac. RLL, no opac. LLL.
..1 ...: Rt. LZ consolidation + small Lt. effusion | RLL opacity has nearly resolved | opac. RLL, ?collapse
..1 ...: r/o RUL mass; RLL atelect. | consol R LL (new) | opac in the R L/Z | RLL pna improving, not resolved
..1 ...: IND: SOB. FINDINGS: Rt LZ haze. IMP: ?early pneumonia. | Rt. CP angle clear, rt. base hazy
..1 ...: R LL opacity, L pleural eff | Suspicious opacity, R base, ? malignancy | RLL opacity [new]
..1 ...: R lower lobe opacity → pneumonia | RLL opac. vs. atelect. | Rt basal opacity obscuring the R hemidiaphragm
..1 ...: Right lower zone haziness, likely atelectasis rather than pneumonia | Patchy infil. RLL | basal opac. Rt
..1 ..1: b/l LZ opacities, R>L, no effusion | Opacites at both lung bases | Opacity RLZ/LLZ | consolid. both bases
..1 ..1: B/L LL consol. | bibasilar opac. 2/2 atelect. | RLL >> LLL consolidation
..1 ..1: Bibasal crackles clinically. CXR: bibasal consolidation. | Peripheral LZ opacities, R=L
..1 ..1: Both LLs consolidated | R & L LZ infiltrates | basilar opacities, L>>R | opacity in each lower zone
..1 ..1: opacity at either base | Basal opac. R > L | Basal opac. R>L.
..1 .1.: 1. RLL pna 2. LMZ opac. | Opacities at the R base and at the L mid zone, neither of which has changed
..1 .1.: RLZ/LMZ airspace opacification
..1 1..: 1. LUL mass. 2. RLL atelectasis. 3. No pneumothorax.
.1- .1-: Bilat. perihilar haze; bases clear.
.1. ---: RML opac. w/ vol loss, L lung NAD
.1. ...: Rt. hilar opac. unchanged | RML syndrome with opacity
.1. ..1: Hazy opacity in the rt. mid and lt. lower zones
.1. .1.: Perihilar opacities b/l
.11 ---: Mid & lower zones on the R show opacities; the L is spared | opacity R mid-to-lower zone, no L-sided disease
.11 .11: mid and lower zone opacities b/l
1.. ...: Known RUL ca. Nil acute.
1.. ..1: RUL & LLL nodules; no LAD
1.. .1.: RUZ & LMZ patchy infiltrates, r/o TB
1.. 1..: bilat apical scarring, stable
1.1 ...: RUL+RLL opacs | RUL/RLL consolidation, RML not assessed
1.1 .1.: Patchy opacities: RUZ, RLZ, LMZ
11- ---: RUZ and RMZ opacities; rest clear
11. -..: Rt. upper/mid zone fibrosis, Lt. apex clear
11. ..1: RUL, RML, LLL airspace dz
111 111: diffuse b/l airspace opacities
... ..1: FINDINGS: Opacity in the left base\\nHISTORY: RUL pneumonia
"""
PAST_AND_SIGNS = """\
--- --1: Both lungs clear bar left base opacity
-.. 1..: left rather than right upper lobe opacity
-.1 -..: Upper lobes: clear. Bases: right hazy
-11 111: all zones except right upper
..- ..1: the left, but not the right, base is opacified | Bases: clear on right, opacity on left
..- ..1: lower zones: left hazy, right clear
... ..-: no longer opacity in the left base | no residual opacity in the left base | opacity left base: N
... ..-: left base opacity: 0 | left lower lobe consolidation: false | Opacities spare the left base
... ..-: left base opacity, previously described, is no longer seen
... ..1: no evidence of resolution of the left basal opacity | No improvement in the left base opacity
... ..1: left base opacity has not improved | left base opacity fails to clear | left base opacity did not resolve
... ..1: left base opacity is not resolving | There is no clearing of the left base opacity
... ..1: left base opacity never cleared | opacity left base: Y | left lower lobe consolidation: true
... ..1: left base opacity, previously described, is again seen | previously noted left base opacity, now larger
... 11.: upper 2/3 of left lung opacity
..1 ..-: no decrease of right base opacity; no left base opacity | Left base consolidation [-], right base [+]
..1 ...: no interval improvement of the right lower lobe consolidation
..1 ...: <b>History:</b> left base pneumonia <b>Findings:</b> right base opacity
..1 ...: <p>History: left base pneumonia</p><p>Findings: right base opacity</p>
..1 ...: previous left base opacity, now right base opacity | Prior: left base opacity. Now: right base opacity
..1 ...: Compared to prior left base opacity, there is now right base opacity
..1 ...: PRIOR STUDY: left base opacity. CURRENT STUDY: right base opacity
..1 ...: Last year: left base opacity. Now: right base opacity | c/o left base pain. right base opacity
..1 ...: crackles at the left base. Film: right base opacity | Recommend CT of the left base. Right base opacity.
..1 ...: Right base opacity, recommend follow up
..1 ..1: previous left base opacity, now also right base opacity
111 11-: Opacity everywhere except the left base
111 111: opacities in all zones
"""


def rows(table):
    return [(text, line[:7]) for line in table.strip().splitlines() for text in line[9:].split(" | ")]


@pytest.mark.parametrize(("text", "expected"), rows(CONTRASTS + CAPTIONS + ROOM + PAST_AND_SIGNS))
def test_words_of_reading_rooms(text, expected):
    report = parse(text.replace("\\n", "\n"), laterality="patient")
    states = "".join(DIGIT[state] for state in report.zones.states)
    assert f"{states[:3]} {states[3:]}" == expected
