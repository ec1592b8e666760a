"""Molecules that are hard for a force field, drugs of ordinary shapes, and what RDKit says about both."""

__all__ = ["DRUG_LIKE", "HARD", "TERMS", "molecule", "rdkit_answers"]

from functools import cache

import numpy as np
import torch

HARD = (
    # Straight centres and what stands beside them.
    "CC#C", "C#CC#C", "CC#N", "C[N+]#[C-]", "CN=[N+]=[N-]", "C=C=C", "CC=C=CC", "O=C=O", "N#N", "CN=C=O", "CN=C=S",
    # Small rings, cages, spiro and bridged ones.
    "C1CC1", "C1=CC1", "C1CO1", "C1CCC1", "C1=CCC1", "O=C1CCN1", "C1CC2CC12", "C12C3C4C1C5C2C3C45", "C1CC12CCC2",
    "C1CC2CCC1C2", "C1C2CC3CC1CC(C2)C3", "C1CN2CCN1CC2",
    # Sulfur and phosphorus in every state.
    "CS(C)=O", "CS(C)(=O)=O", "NS(=O)(=O)c1ccccc1", "CSSC", "CP(C)C", "CP(C)(C)=O", "COP(=O)([O-])OC",
    "COP(=O)(O)O", "c1ccsc1", "CC(=S)N",
    # Charges, zwitterions, salts, metals.
    "[O-]Cl(=O)(=O)=O", "C[N+](=O)[O-]", "C[N+](C)(C)C", "[NH3+]CC(=O)[O-]", "NC(=[NH2+])N", "C[n+]1cc[nH]c1",
    "[NH4+]", "C[NH3+].[Cl-]", "[Zn+2].[O-]C=O", "C[n+]1ccccc1[O-]",
    # The rest: silicon, halogens, the smallest ones, nitrogen beside nitrogen.
    "C[SiH2]C", "FC(Cl)(Br)I", "O", "CN=NC", "c1nnn[nH]1", "CC(=O)ON",
)  # fmt: skip

DRUG_LIKE = (
    "CC(=O)Oc1ccccc1C(=O)O",
    "CC(C)Cc1ccc(C(C)C(=O)O)cc1",
    "CC(=O)Nc1ccc(O)cc1",
    "Cn1c(=O)c2c(ncn2C)n(C)c1=O",
    "CN1CCCC1c1cccnc1",
    "COCCOCCOC",
    "CCCCCC(=O)O",
    "CCN(CC)CCOC(=O)c1ccc(N)cc1",
    "CC(C)NCC(O)COc1cccc2ccccc12",
    "CNCCC(Oc1ccc(C(F)(F)F)cc1)c1ccccc1",
    "CN1C(=O)CN=C(c2ccccc2)c2cc(Cl)ccc21",
    "CC1(C)SC2C(NC(=O)Cc3ccccc3)C(=O)N2C1C(=O)O",
    "Cc1cc(NS(=O)(=O)c2ccc(N)cc2)no1",
    "NC(Cc1c[nH]c2ccccc12)C(=O)O",
    "OCC1OC(O)C(O)C(O)C1O",
    "CC12CCC3C(CCC4=CC(=O)CCC34C)C1CCC2O",
    "C[N+](C)(C)CCOC(C)=O",
    "O=c1cc(-c2ccccc2)oc2ccccc12",
    "CCOC(=O)C1=C(C)NC(C)=C(C(=O)OC)C1c1cccc([N+](=O)[O-])c1",
    "CC(N)C(=O)NC(CO)C(=O)NCC(=O)O",
)

TERMS = ("Bond", "Angle", "StretchBend", "Oop", "Torsion", "VdW", "Ele")


@cache
def molecule(smiles):
    """Return RDKit's molecule with hydrogens, and three geometries, every atom of which was moved by 0.05 angstrom."""
    from rdkit import Chem, rdBase
    from rdkit.Chem import rdDistGeom

    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    options = rdDistGeom.ETKDGv3()
    options.randomSeed, options.useRandomCoords = 11, True
    with rdBase.BlockLogs():
        ids = rdDistGeom.EmbedMultipleConfs(mol, 3, options)
    assert len(ids) == 3, smiles
    positions = np.stack([mol.GetConformer(index).GetPositions() for index in ids])
    return mol, torch.from_numpy(positions + 0.05 * np.random.default_rng(5).standard_normal(positions.shape))


def rdkit_answers(mol, positions, variant="MMFF94s", only=None):
    """Return RDKit's energies and slopes, of all terms or of one alone.

    `CalcGrad(positions)` reads distances that `CalcEnergy(positions)` left behind: it is right only directly after that
    call with the same positions, and wrong, without a word, after any other.
    """
    from rdkit.Chem import rdForceFieldHelpers as helpers

    known = helpers.MMFFGetMoleculeProperties(mol, mmffVariant=variant)
    for term in TERMS:
        getattr(known, f"SetMMFF{term}Term")(only in (None, term))
    made = helpers.MMFFGetMoleculeForceField(mol, known)
    made.Initialize()
    energies, slopes = [], []
    for row in positions.double().numpy():
        flat = row.ravel().tolist()
        energies.append(made.CalcEnergy(flat))
        slopes.append(np.array(made.CalcGrad(flat)).reshape(row.shape))
    return torch.tensor(energies, dtype=torch.float64), torch.from_numpy(np.stack(slopes))
