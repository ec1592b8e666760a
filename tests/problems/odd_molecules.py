"""Molecules for the tests: texts that must be refused with certain words, and odd ones that must be read."""

BLOCK = """lactic acid <b>
     by hand

  6  5  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 C   0  0
    1.2990    0.7500    0.0000 C   0  0
    2.5981    0.0000    0.0000 C   0  0
    1.2990    2.2500    0.0000 O   0  0
    2.5981   -1.5000    0.0000 O   0  0
    3.8971    0.7500    0.0000 O   0  0
  1  2  1  0
  2  3  1  0
  2  4  1  1
  3  5  2  0
  3  6  1  0
M  END
"""
BLOCK_V3000 = """hydroxyacetone
     by hand

  0  0  0     0  0            999 V3000
M  V30 BEGIN CTAB
M  V30 COUNTS 5 4 0 0 0
M  V30 BEGIN ATOM
M  V30 1 C 0 0 0 0
M  V30 2 C 1.3 0.75 0 0
M  V30 3 C 2.6 0 0 0
M  V30 4 O 1.3 2.25 0 0
M  V30 5 O 3.9 0.75 0 0
M  V30 END ATOM
M  V30 BEGIN BOND
M  V30 1 1 1 2
M  V30 2 1 2 3
M  V30 3 2 2 4
M  V30 4 1 3 5
M  V30 END BOND
M  V30 END CTAB
M  END
"""
# Chiral by its coordinates alone: the four neighbours of the second atom stand on a tetrahedron.
BLOCK_3D = """bromochlorofluoromethane
     by hand 3D

  4  3  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 C   0  0
    1.0900    1.0900    1.0900 Br  0  0
   -1.0000   -1.0000    1.0000 Cl  0  0
   -0.8000    0.8000   -0.8000 F   0  0
  1  2  1  0
  1  3  1  0
  1  4  1  0
M  END
"""

REFUSED = (
    ("", "empty"), ("   \n\t ", "empty"), ("C1CC", "ring number"), ("C1CC2", "ring number"), ("C1CCC=1C#1", "ring"),
    ("C(C", "branch"), ("C(C(C", "branch"), ("C)C", "closes no branch"), ("C))", "closes no branch"),
    ("[C", "bracket"), ("CC[NH3+", "bracket"), ("C]", "']' does not belong at place 2"), ("C%", "'%'"),
    ("C%1", "place"), ("Xx", "'X'"), ("[Zz]", "'Z'"), ("C==C", "place 3"), ("CC.", "place 3"),
    (".CC", "place 1"), ("=C", "place 1"),
    (")(", "place 1"), ("()", "place 1"), ("C()C", "place"), ("hello world", "'h'"), ("1-propanol", "place 1"),
    ("<script>alert(1)</script>", "'<'"), ("{C}", "'{'"), ("C\\", "place"), ("[13C@@@]", "place"),
    ("[C@TH3]", "chiral"), ("[C:99999999999]", "number is too large"), ("C11", "itself"),
    ("C%(1000)C%(1000)", "duplicates"),
    ("C12CC12C12", "ring number"), ("café", "'\\xe9' at place 4"), ("CC\u200bO", "'\\u200b' at place 3"),
    ("CC\0O", "'\\x00'"), ("C\x07", "'\\x07'"), ("\u041e", "'\\u041e'"), ("C\ud800", "'\\ud800'"), ("🙂", "place 1"),
    ("CCO\nCCC", "several lines"), ("C" * 2_001, "2,001"), ("C" * 151, "151 atoms"), ("C" * 500, "500 atoms"),
    ("C(" * 400 + "C" + ")" * 400, "401 atoms"), ("c1ccccc1" * 100, "600 atoms"), ("C1CC1" * 60, "180 atoms"),
    ("c1cccc1", "atoms 1, 2, 3, 4, 5"), ("c1ccc[nH]c1", "aromatic"), ("n1cccc1", "[nH]"), ("c1ccccc1c", "in no ring"),
    ("[nH]", "in no ring"), ("C:C", "in no ring"), ("cc", "in no ring"), ("C(C)(C)(C)(C)C", "atom 1 (C) has 5 bonds"),
    ("CC(=O)(=O)C", "atom 2 (C) has 6 bonds"), ("CN(C)(C)C", "atom 2 (N) has 4 bonds"), ("FC#CF=F", "bonds"),
    ("O(C)(C)C", "atom 1 (O) has 3 bonds"), ("F(F)F", "atom 1 (F)"), ("[H]C([H])([H])([H])[H]", "bonds"),
    ("[CH5]", "5 bonds"), ("[CH99]", "hydrogens"), ("[UH20]", "hydrogens"), ("[#200]", "number 200"),
    ("[Og]", "oganesson"), ("[Rf]", "rutherfordium"), ("F[Xe]F", "xenon"), ("S(F)(F)(F)(F)(F)F", "sulfur"),
    ("[C+99]", "charge +99"), ("[C-9]", "charge -9"), ("*", "any atom"), ("*CC", "atom 1"), ("CC*", "atom 3"),
    ("[*]C", "any atom"), ("[#0]", "any atom"), ("C~C", "bond of atom 1 (C) and atom 2 (C)"), ("C$C", "quadruple"),
    ("N->B", "dative"), ("[CH3]", "unpaired electron"), ("C[CH]C", "atom 2 (C) is a radical"),
    ("O.[H]C[CH]C", "atom 4 (C)"), ("[O][O]", "radical"),
    ("[N]=O", "radical"), ("[CH2]", "2 unpaired electrons"), ("CC[O]", "radical"), ("[C]", "4 unpaired electrons"),
    ("[H][H]", "no atoms but hydrogen"), ("[H+]", "no atoms but hydrogen"), ("[2H][2H]", "no atoms but hydrogen"),
    ("CC.CC", "mixture"), ("CCO.CCN", "mixture"), ("CCCCCC.c1ccccc1", "mixture"), ("[Na+].[Cl-]", "none with carbon"),
    ("O.O", "none with carbon"), (".".join(["C"] * 30), "30 parts"),
    ("\n\n\n  0  0  0  0  0  0  0  0  0  0999 V2000\nM  END\n", "no atom"), ("M  END", "cannot be read"),
    (BLOCK.replace("M  END", ""), "no line 'M  END'"), (BLOCK[:200], "no line 'M  END'"),
    (BLOCK.replace("  6  5", "  7  5"), "promises 12"), (BLOCK.replace("  6  5", "999999"), "promises 1998"),
    (BLOCK.replace("O   0", "Xx  0", 1), "there is no element Xx"),
    (BLOCK.replace("V2000", "V9000"), "cannot be read"), (BLOCK.replace("O   0", "A   0", 1), "any atom"),
    (BLOCK.replace("O   0", "R#  0", 1), "any atom"), (BLOCK.replace("  1  2  1", "  1  2  8"), "bond of atom"),
    (BLOCK.replace("M  END", "M  RAD  1   1   2\nM  END"), "radical"), (BLOCK.replace("acid", "a\0cid"), "NUL"),
    (BLOCK.replace("M  END", "M  CHG  1   1  15\nM  END"), "charge +15"), (BLOCK.replace("1  2  1", "1 77  1"), "read"),
    (BLOCK_V3000.replace("COUNTS 5", "COUNTS 999999999"), "cannot be read"),
    (BLOCK_V3000.replace("COUNTS 5", "COUNTS -1"), "cannot be read"),
    (BLOCK_V3000.replace("M  V30 END CTAB\n", ""), "read"), ("x" * 150_000 + "\n" * 60_000 + "M  END", "200,000"),
)  # fmt: skip

# What is read, its canonical SMILES, and words of its note ("" where there is to be none).
READ = (
    ("C", "C", ""), ("OCC", "CCO", ""), (" CCO  ", "CCO", ""), ("[CH4]", "C", ""), ("[H]C([H])([H])[H]", "C", ""),
    ("C1=CC=CC=C1", "c1ccccc1", ""), ("[nH]1cccc1", "c1cc[nH]c1", ""), ("N#N", "N#N", ""), ("O=C=O", "O=C=O", ""),
    ("O", "O", ""), ("[NH4+]", "[NH4+]", ""), ("C[N+](C)(C)C", "C[N+](C)(C)C", ""), ("[O-]C=O", "O=C[O-]", ""),
    ("C[N+](=O)[O-]", "C[N+](=O)[O-]", ""), ("CN(=O)=O", "C[N+](=O)[O-]", ""), ("CS(=O)(=O)C", "CS(C)(=O)=O", ""),
    ("[13CH3]C", "CC", "isotope"), ("C[2H]", "C", "isotope"), ("[14C@H](F)(Cl)Br", "F[C@@H](Cl)Br", "isotope"),
    ("[CH3:7]C", "CC", ""), ("CC(=O)[O-].[Na+]", "CC(=O)[O-]", "[Na+] was left out"), ("CCN.Cl", "CCN", "Cl was left"),
    ("c1ccccc1CCN.O.O", "NCCc1ccccc1", "part O was left out"), ("C[N+](C)(C)C.[Cl-]", "C[N+](C)(C)C", "[Cl-] was left"),
    ("CCCCCCCCC(=O)O.CO", "CCCCCCCCC(=O)O", "CO was left out"), ("C/C=C/C", "C/C=C/C", ""),
    ("C/C=C\\C", "C/C=C\\C", ""), ("CC=CC", None, "a stereocentre was left open"),
    ("CC(F)C(F)Cl", None, "2 stereocentres"),
    ("N[C@@H](C)C(=O)O", "C[C@H](N)C(=O)O", ""), ("[H]/N=C/C", "[H]/N=C/C", ""), ("OB(O)c1ccccc1", "OB(O)c1ccccc1", ""),
    ("C1CC1", "C1CC1", ""), ("C%12CC%12", "C1CC1", ""), ("C%(123)CC%(123)", "C1CC1", ""), ("C" * 150, "C" * 150, ""),
    ("[Si](C)(C)(C)C", "C[Si](C)(C)C", ""), ("OS(=O)(=O)O", "O=S(=O)(O)O", ""),
    (BLOCK, "C[C@@H](O)C(=O)O", ""), (BLOCK.replace("\n", "\r\n"), "C[C@@H](O)C(=O)O", ""),
    (BLOCK + "> <x>\n</script>\n\n$$$$\n" + BLOCK, "C[C@@H](O)C(=O)O", "first record"), (BLOCK_V3000, "CC(=O)CO", ""),
    (BLOCK + "> <x>\n1\n\n$$$$\n", "C[C@@H](O)C(=O)O", ""), (BLOCK_3D, "F[C@H](Cl)Br", ""),
    (BLOCK + "$$$$\n" + "x" * 300_000, "C[C@@H](O)C(=O)O", "first record"),
)  # fmt: skip

DRUGS = (
    "CC(=O)Oc1ccccc1C(=O)O",
    "CC(C)Cc1ccc(cc1)[C@@H](C)C(=O)O",
    "Cn1c(=O)c2c(ncn2C)n(C)c1=O",
    "CN1CCC[C@H]1c1cccnc1",
    "C[N+](C)(C)CCOC(C)=O",
    "N[C@@H](Cc1c[nH]c2ccccc12)C(=O)[O-]",
    "OC[C@H]1OC(O)[C@H](O)[C@@H](O)[C@@H]1O",
    "Clc1ccc(cc1)C(c1ccccc1)N1CCN(CC1)CCOCC(=O)O",
    "FC(F)(F)c1ccc(OC(CCNC)c2ccccc2)cc1",
    "C1CC2CCC1C2",
    "[Na+].CC(=O)[O-]",
    "CC/C=C\\C/C=C\\CC#N",
)
