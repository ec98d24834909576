"""Every constant of planning, with its unit and its origin.

"nnU-Net" is version 2.8.1: ExperimentPlanner for the plan, nnUNetTrainer for the training.
"""

# --- target spacing and transpose

ANISOTROPY = 3.0
"""Ratio of spacings, and of shapes, above which an axis counts as coarse (nnU-Net: ANISO_THRESHOLD)."""

COARSE_AXIS_PERCENTILE = 10.0
"""Percentile of a coarse axis's spacings that becomes its target, in per cent (nnU-Net)."""

COARSE_AXIS_MARGIN = 1e-5
"""What keeps a coarse axis coarser than the others when its percentile is not, in mm (nnU-Net)."""

# --- patch size and batch size

PATCH_VOLUME = 256.0**3
"""Voxels of the patch from which shrinking starts, where the images are that large (nnU-Net)."""

REFERENCE_VOXELS = 560e6
"""Feature map voxels of one sample that nnU-Net's reference network has at the reference memory (nnU-Net)."""

REFERENCE_MEMORY_GB = 8.0
"""Memory that belongs to REFERENCE_VOXELS, in GB (nnU-Net)."""

REFERENCE_BATCH = 2
"""Batch size at which a patch must fit (nnU-Net: UNet_reference_val_3d at batch size 2)."""

MIN_BATCH = 2
"""Smallest batch size (nnU-Net: UNet_min_batch_size)."""

MAX_COVERAGE = 0.05
"""Largest part of the dataset's voxels that one batch may hold (nnU-Net: max_dataset_covered)."""

MIN_PATCH_EDGE = 4
"""Fewest voxels to which an axis of a patch is shrunk: the edge that nnU-Net keeps in the coarsest stage."""

MIN_PATCH_VOXELS = 16**3
"""Fewest voxels to which a patch is shrunk: smaller ones hold too little to recognise anything (autoseg's own)."""

USABLE_MEMORY = 0.9
"""Part of the budget that a predicted memory may take: predictions are good to about 10 %, and allocators waste
some."""

# --- normalisation and resampling

NORMALIZATION = {"ct": "ct", "nonorm": "none", "zscore": "zscore", "rescale_to_0_1": "rescale", "rgb_to_0_1": "rgb"}
"""Channel name in lower case to scheme; every other name is z-scored (nnU-Net)."""

MASK_BELOW_RELATIVE_SIZE = 0.75
"""Median part of a volume left by cropping to nonzero below which z-scores are taken within the nonzero mask
(nnU-Net)."""

IMAGE_ORDER = 3
"""Spline order of image resampling (nnU-Net)."""

LABEL_ORDER = 1
"""Spline order of label resampling: linear, class by class (nnU-Net)."""

# --- training

EPOCHS = 1000
"""Epochs (nnU-Net)."""

ITERATIONS_PER_EPOCH = 250
"""Training iterations an epoch (nnU-Net)."""

VALIDATION_ITERATIONS = 50
"""Validation iterations an epoch (nnU-Net)."""

FOREGROUND_OVERSAMPLING = 0.33
"""Part of a batch whose patches are centred on foreground (nnU-Net)."""

LOSS = "dice_ce"
"""Dice and cross-entropy (nnU-Net)."""

PRECISION = "bf16"
"""bf16 needs no loss scaling, and CPUs compute it too; nnU-Net uses fp16 on GPUs only."""

AUGMENTATION = ("spatial", "gaussian_noise", "brightness", "contrast", "gamma", "mirror")
"""Augmentations in the order in which they are applied (nnU-Net's order), those that the package has."""

FLAT_PATCH = 3.0
"""Ratio of the longest patch axis to the first above which patches are rotated within their slices only (nnU-Net)."""

ROTATION_DEGREES = (30.0, 30.0, 30.0)
"""Half-ranges of rotation about the z, y and x axis (nnU-Net)."""

FLAT_ROTATION_DEGREES = (180.0, 0.0, 0.0)
"""The same for flat patches (nnU-Net: dummy 2-D augmentation)."""

# --- prediction and scoring

TILE_STEP = 0.5
"""Distance between tiles as a part of the patch (nnU-Net)."""

SURFACE_TOLERANCE_MM = 2.0
"""Tolerance of the normalised surface Dice in mm; set it to what two readers differ by on your structures."""

# --- short trainings

SHORT_ITERATIONS = 10_000
"""Total iterations below which the recipe for short trainings is taken. nnU-Net's SGD is tuned for 250,000: cut to
400 iterations on Hippocampus it reached a mean Dice of 0.30, the recipe below with the same topology 0.80 after
200."""

SHORT_LEARNING_RATE = 1e-3
"""Learning rate of AdamW in a short training of a convolutional network (measured on Hippocampus)."""

SHORT_LEARNING_RATE_FACTOR = 3.0
"""By how much a short training raises the learning rate of an architecture that already uses AdamW."""

SHORT_WEIGHT_DECAY = 1e-2
"""Weight decay of AdamW in a short training (PyTorch's default, with which it was measured)."""

SHORT_WARMUP_ITERATIONS = 20
"""Warm-up of a short training in iterations (measured on Hippocampus)."""

SHORT_WARMUP_PART = 0.1
"""Largest part of a short training that is warm-up."""

SHORT_AUGMENTATION = ("mirror",)
"""Augmentation of a short training: there is no time to overfit (measured on Hippocampus)."""

LEARNING_RATES = {"sgd": 1e-2, "adam": 3e-4, "adamw": 1e-3, "rmsprop": 1e-4}
"""Learning rate of an optimiser that is chosen by name alone: nnU-Net's for SGD, nnU-Net's Adam trainers, common
practice."""
