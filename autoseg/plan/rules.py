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

DEFAULT_MEMORY_GB = 8.0
"""Memory that is planned for, in GB, where neither the user nor the architecture says otherwise (nnU-Net)."""

PATCH_EDGE = {2: 2048.0, 3: 256.0}
"""Edge of the square or cube that has as many voxels as the patch from which shrinking starts, where the images are
that large, by number of axes (nnU-Net)."""

REFERENCE_BATCH = {2: 12, 3: 2}
"""Batch size to which nnU-Net's numbers of feature map voxels refer, by number of axes (nnU-Net:
UNet_reference_val_corresp_bs_2d and _3d)."""

MIN_BATCH = 2
"""Smallest batch size (nnU-Net: UNet_min_batch_size)."""

MAX_COVERAGE = 0.05
"""Largest part of the dataset's voxels that one batch may hold (nnU-Net: max_dataset_covered)."""

MAX_PADDING = 2.0
"""Largest ratio of a patch axis to the median image: beyond it more than half of every patch would be padding, and the
architecture does not suit the data (autoseg's own)."""

# --- low resolution

LOW_RESOLUTION_BELOW = 0.25
"""Part of the median image shown by a patch below which a plan at low resolution is made (nnU-Net:
lowres_creation_threshold)."""

LOW_RESOLUTION_STEP = 1.03
"""Factor by which the spacing is coarsened until the patch shows that part (nnU-Net)."""

LOW_RESOLUTION_SIMILAR = 2.0
"""Axes finer than the coarsest by more than this factor are coarsened first (nnU-Net)."""

LOW_RESOLUTION_GAIN = 2.0
"""Fewest times that the images' voxels must become fewer, else the plan at low resolution is dropped (nnU-Net)."""

MIN_PATCH_EDGE = 4
"""Fewest voxels to which an axis of a patch is shrunk: the edge that nnU-Net keeps in the coarsest stage."""

MIN_PATCH_VOXELS = {2: 32**2, 3: 16**3}
"""Fewest voxels to which a patch is shrunk: smaller ones hold too little to recognise anything (autoseg's own)."""

USABLE_MEMORY = 0.95
"""Part of the budget, less ``CONTEXT_GB``, that a predicted memory may take: an allocator cannot use every gap."""

VOXELS_PER_GB = 128**3 / 6
"""Voxels of a patch at batch size 2 that take about 1 GB: only where the search for the patch starts."""

CONTEXT_GB = 0.5
"""What CUDA's context takes of a device, in GB, outside the allocator. A usual figure, not yet measured here."""

WORKSPACE_GB = 0.25
"""What cuDNN's convolutions are allowed for their workspaces, in GB, inside the allocator. An assumption, not
yet measured on a GPU; tests/benchmarks/memory.py does that."""

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

AUGMENTATION = "nnunet"
"""The recipe of augmentations; see augmentation.py."""

FLAT_PATCH = 3.0
"""Ratio of the longest patch axis to the first above which patches are rotated within their slices only (nnU-Net)."""

ROTATION_DEGREES = (30.0, 30.0, 30.0)
"""Half-ranges of rotation about the z, y and x axis (nnU-Net)."""

FLAT_ROTATION_DEGREES = (180.0, 0.0, 0.0)
"""The same for flat patches (nnU-Net: dummy 2-D augmentation) and for slices."""

SIDED_ROTATION_DEGREES = (30.0, 0.0, 0.0)
"""The same where left and right must be told apart (autoseg's own; nnU-Net mixes them)."""

LONG_SLICE = 1.5
"""Ratio of the sides of a slice's patch above which it is rotated less (nnU-Net)."""

LONG_SLICE_ROTATION_DEGREES = (15.0, 0.0, 0.0)
"""Half-ranges of rotation for such slices (nnU-Net)."""

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

BRIEF_ITERATIONS = 1000
"""Total iterations below which even mirroring costs more than it brings: after 250 on Hippocampus the mean Dice was
0.86 without augmentation and 0.82 with mirroring, since a mirrored image is one more thing to learn."""

LEARNING_RATES = {"sgd": 1e-2, "adam": 3e-4, "adamw": 1e-3, "rmsprop": 1e-4}
"""Learning rate of an optimiser that is chosen by name alone: nnU-Net's for SGD, nnU-Net's Adam trainers, common
practice."""
