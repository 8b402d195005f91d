"""GAN Compression (Li et al., CVPR 2020 and T-PAMI 2022, arXiv:2003.08936): conditional generators
at a fraction of their cost.

A generator is distilled into a supernet, whose every configuration of channels shares one set of
weights; the best configuration within a budget of multiply-accumulates is searched in it, without
training anything again, and exported.

- `compress`: all of it for a generator of your own.
- `smallnets.gan.networks`: generators of the four families (CycleGAN and pix2pix ResNets, U-Net,
  GauGAN, MUNIT), their mobile versions and supernets, `supernet` for any other, discriminators,
  configurations, multiply-accumulates, L1 pruning and sorting.
- `gan_loss`, `generator_loss`, `discriminator_losses`, `gradient_penalty`, `reconstruction_loss`,
  `PerceptualLoss`, `feature_matching`; `FeatureMaps`, `kernel_alignment`: the losses.
- `Compression`, `SPADECompression`, `MUNITCompression`: one step of a student, with or without
  pairs. `Pix2PixTeacher`, `CycleGANTeacher`, `GauGANTeacher`, `MUNITTeacher`: of a teacher.
- `GANTraining`, `play`: the loop that trains all of them; `RECIPES`: as it was published.
- `train_teacher`, `sorted_supernet`, `train_supernet`, `search_supernet`, `fine_tune`, `export`:
  the steps, each with a result that is kept.
- `brute_force`, `evolution`, `random_search`: searches under a budget.
- `Distance`, `FID`, `KID`, `MeanIoU`, `score_of`; `train_reader`: how good images are.

Where paper and official code differ, the code is followed. Kernel alignment comes from another
paper, CAT (Jin et al., CVPR 2021). Data to begin with: `smallnets.data.scenes`.
"""

from smallnets.gan.compression import Compression, MUNITCompression, SPADECompression, feature_maps
from smallnets.gan.features import FeatureMaps, KernelAlignment, kernel_alignment
from smallnets.gan.losses import (
    GAN_MODES,
    RECONSTRUCTIONS,
    VGG19_LAYERS,
    VGG_WEIGHTS,
    PerceptualLoss,
    discriminator_losses,
    feature_matching,
    gan_loss,
    generator_loss,
    gradient_penalty,
    reconstruction_loss,
)
from smallnets.gan.objectives import (
    PUBLISHED,
    MUNITObjective,
    Objective,
    SPADEObjective,
    discriminator_terms,
    munit_terms,
    spade_terms,
    student_terms,
)
from smallnets.gan.pipeline import Compressed, compress
from smallnets.gan.playing import GANTraining, ImagePool, Pictures, linear_policy, play
from smallnets.gan.reading import LabelReader, train_reader
from smallnets.gan.recipes import RECIPES, Recipe, munit_recipe
from smallnets.gan.scores import (
    FID,
    KID,
    Distance,
    MeanIoU,
    calibration_batches,
    fid_from,
    score_of,
    translated,
)
from smallnets.gan.search import (
    Evolution,
    SearchResult,
    brute_force,
    evolution,
    random_search,
)
from smallnets.gan.steps import (
    Ends,
    KeptScores,
    export,
    fine_tune,
    search_supernet,
    sorted_supernet,
    train_supernet,
    train_teacher,
)
from smallnets.gan.teachers import (
    CycleGANTeacher,
    GauGANTeacher,
    MUNITTeacher,
    Pix2PixTeacher,
)

__all__ = [
    "FID",
    "GAN_MODES",
    "KID",
    "PUBLISHED",
    "RECIPES",
    "RECONSTRUCTIONS",
    "VGG19_LAYERS",
    "VGG_WEIGHTS",
    "Compressed",
    "Compression",
    "CycleGANTeacher",
    "Distance",
    "Ends",
    "Evolution",
    "FeatureMaps",
    "GANTraining",
    "GauGANTeacher",
    "ImagePool",
    "KeptScores",
    "KernelAlignment",
    "LabelReader",
    "MUNITCompression",
    "MUNITObjective",
    "MUNITTeacher",
    "MeanIoU",
    "Objective",
    "PerceptualLoss",
    "Pictures",
    "Pix2PixTeacher",
    "Recipe",
    "SPADECompression",
    "SPADEObjective",
    "SearchResult",
    "brute_force",
    "calibration_batches",
    "compress",
    "discriminator_losses",
    "discriminator_terms",
    "evolution",
    "export",
    "feature_maps",
    "feature_matching",
    "fid_from",
    "fine_tune",
    "gan_loss",
    "generator_loss",
    "gradient_penalty",
    "kernel_alignment",
    "linear_policy",
    "munit_recipe",
    "munit_terms",
    "play",
    "random_search",
    "reconstruction_loss",
    "score_of",
    "search_supernet",
    "sorted_supernet",
    "spade_terms",
    "student_terms",
    "train_reader",
    "train_supernet",
    "train_teacher",
    "translated",
]
