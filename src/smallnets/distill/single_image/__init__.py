"""The augmented image prior (Asano & Saeed, ICLR 2023, arXiv:2112.00725): distilling a classifier
from the patches of one photograph.

One picture is cut into many strongly changed patches. A trained teacher is asked about them, and a
student that starts from nothing learns its soft answers, and so to classify real images of classes
that are nowhere in the picture.

- `PatchSettings`, `sample_patch_parameters`, `render_patches`, `render_patch_reference`: the patch
  generator with every switch of the official one, as whole batches and as the exact reference.
- `PatchGenerator`, `patch_pool`, `patch_stream`, `fresh_batches`, `pool_batches`: a pool in memory,
  and patches without end.
- `source_image`: photographs, noise, blank pictures, your own file; `source_statistics`.
- `cutmix_images`, `cutmix_clips`, `mixup_images`; `TrainingView`; `distill_kl`, `argmax_loss`,
  `top_k_loss`, `logit_loss`: one step of the training.
- `Imitation`, `SingleImageDistillation`, `distill_from_image`: all of it.
- `real_images`, `patchified`: what one photograph is compared with.
- `coverage`, `accuracy_against_coverage`, `layer_similarity`, `embed`, `maximise_activation`: the
  analyses.
- `fake_clip`, `ClipGenerator`: fake video. `log_mel`, `ExcerptGenerator`, `spectrogram_dataset`:
  sound.

The published Wide ResNets are `smallnets.models.wide_resnet(..., tensorflow=True)`. Where paper and
official code differ, the code is followed. The audio half has no published code.
"""

from smallnets.distill.single_image.activation import Ascent, maximise_activation
from smallnets.distill.single_image.baselines import patchified, real_images
from smallnets.distill.single_image.coverage import (
    ClassAccuracies,
    Coverage,
    accuracy_against_coverage,
    coverage,
    coverage_of_logits,
)
from smallnets.distill.single_image.embedding import (
    Embedding,
    embed,
    layer_similarity,
    pooled_features,
)
from smallnets.distill.single_image.losses import (
    LOSSES,
    agreement_rate,
    argmax_loss,
    distill_kl,
    imitation_loss,
    logit_loss,
    top_k_loss,
)
from smallnets.distill.single_image.mixing import (
    MIXINGS,
    CutBox,
    cut_box,
    cutmix_clips,
    cutmix_images,
    mixup_images,
)
from smallnets.distill.single_image.objective import (
    PUBLISHED,
    Imitation,
    Normalise,
    SingleImageDistillation,
    distill_from_image,
)
from smallnets.distill.single_image.parameters import PatchParameters, sample_patch_parameters
from smallnets.distill.single_image.reference import (
    ReferencePatch,
    jpeg_round_trip,
    render_patch_reference,
)
from smallnets.distill.single_image.render import Pyramid, render_patches
from smallnets.distill.single_image.settings import PatchSettings
from smallnets.distill.single_image.sound import (
    ExcerptGenerator,
    ExcerptSettings,
    Spectrogram,
    as_images,
    log_mel,
    mel_filterbank,
    spectrogram_dataset,
)
from smallnets.distill.single_image.sources import (
    as_photographs,
    generated_image,
    source_image,
    source_names,
)
from smallnets.distill.single_image.statistics import SourceStatistics, source_statistics
from smallnets.distill.single_image.streams import (
    PatchBatches,
    PatchGenerator,
    fresh_batches,
    load_pool,
    patch_pool,
    patch_stream,
    pool_batches,
    pool_of,
    published_pool_size,
    save_pool,
)
from smallnets.distill.single_image.video import (
    ClipGenerator,
    fake_clip,
    fake_clip_reference,
    interpolate_boxes,
)
from smallnets.distill.single_image.views import (
    CIFAR_VIEW,
    CLIP_VIEW,
    IMAGENET_VIEW,
    NO_VIEW,
    TrainingView,
)

__all__ = [
    "CIFAR_VIEW",
    "CLIP_VIEW",
    "IMAGENET_VIEW",
    "LOSSES",
    "MIXINGS",
    "NO_VIEW",
    "PUBLISHED",
    "Ascent",
    "ClassAccuracies",
    "ClipGenerator",
    "Coverage",
    "CutBox",
    "Embedding",
    "ExcerptGenerator",
    "ExcerptSettings",
    "Imitation",
    "Normalise",
    "PatchBatches",
    "PatchGenerator",
    "PatchParameters",
    "PatchSettings",
    "Pyramid",
    "ReferencePatch",
    "SingleImageDistillation",
    "SourceStatistics",
    "Spectrogram",
    "TrainingView",
    "accuracy_against_coverage",
    "agreement_rate",
    "argmax_loss",
    "as_images",
    "as_photographs",
    "coverage",
    "coverage_of_logits",
    "cut_box",
    "cutmix_clips",
    "cutmix_images",
    "distill_from_image",
    "distill_kl",
    "embed",
    "fake_clip",
    "fake_clip_reference",
    "fresh_batches",
    "generated_image",
    "imitation_loss",
    "interpolate_boxes",
    "jpeg_round_trip",
    "layer_similarity",
    "load_pool",
    "log_mel",
    "logit_loss",
    "maximise_activation",
    "mel_filterbank",
    "mixup_images",
    "patch_pool",
    "patch_stream",
    "patchified",
    "pool_batches",
    "pool_of",
    "pooled_features",
    "published_pool_size",
    "real_images",
    "render_patch_reference",
    "render_patches",
    "sample_patch_parameters",
    "save_pool",
    "source_image",
    "source_names",
    "source_statistics",
    "spectrogram_dataset",
    "top_k_loss",
]
