"""Rigid registration of two scans of one head, by ITK: mutual information, coarse to fine.

    T = argmax over rotations and shifts of  MI( fixed(p), moving(T p) ),      p in world mm, RAS+

(Mattes et al., "PET-CT image registration in the chest using free-form deformations", IEEE Transactions on Medical
Imaging 22(1), 2003.) Both scans are first interpolated to cubic voxels, so that thick slices do not pull.
"""

from __future__ import annotations

from collections.abc import Sequence

import itk
import numpy as np
from nibabel import Nifti1Image

VOXEL = 2.0
"""mm, of the cubes."""
BINS = 48
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""RAS+ to the world of ITK, and back."""


def register(
    fixed: Nifti1Image, moving: Nifti1Image, iterations: int = 200, by_headers: bool = False, samples: int = 0
) -> tuple[np.ndarray, float]:
    """T as a matrix (4, 4) that maps places in the world of `fixed` to that of `moving`, and the mutual information.

    Args:
        fixed, moving: two scans of one head.
        iterations: at each of the three levels, at most.
        by_headers: begin where the headers place the scans; else with their centres of mass on each other.
        samples: voxels that are looked at, at even distances; 0 for all.

    Raises:
        RuntimeError: ITK's, where the scans hardly overlap.
    """
    from nibabel.processing import resample_to_output  # asked for by registrations alone

    cubes = [resample_to_output(image, (VOXEL,) * 3, order=3) for image in (fixed, moving)]
    a, b = (itk_image(image) for image in cubes)
    kind = type(a)
    start = itk.VersorRigid3DTransform[itk.D].New()
    if by_headers:
        start.SetCenter((LPS @ middle_of(cubes[0].affine, cubes[0].shape))[:3].tolist())
    else:
        centre = itk.CenteredTransformInitializer[itk.VersorRigid3DTransform[itk.D], kind, kind].New(
            Transform=start, FixedImage=a, MovingImage=b
        )
        centre.MomentsOn()
        centre.InitializeTransform()
    metric = itk.MattesMutualInformationImageToImageMetricv4[kind, kind].New()
    metric.SetNumberOfHistogramBins(BINS)
    optimiser = itk.RegularStepGradientDescentOptimizerv4[itk.D].New(
        LearningRate=1.0, MinimumStepLength=1e-4, RelaxationFactor=0.6, NumberOfIterations=iterations
    )
    scales = itk.RegistrationParameterScalesFromPhysicalShift[type(metric)].New(Metric=metric)
    optimiser.SetScalesEstimator(scales)
    method = itk.ImageRegistrationMethodv4[kind, kind].New(
        FixedImage=a, MovingImage=b, Metric=metric, Optimizer=optimiser, InitialTransform=start
    )
    method.InPlaceOn()
    share = samples / np.prod(cubes[0].shape)
    if 0 < share < 1:
        method.SetMetricSamplingStrategy(itk.ImageRegistrationMethodv4Enums.MetricSamplingStrategy_REGULAR)
        method.SetMetricSamplingPercentage(float(share))
    method.SetNumberOfLevels(3)
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([3.0, 1.5, 0.5])
    method.SetSmoothingSigmasAreSpecifiedInPhysicalUnits(True)
    method.Update()
    found = itk.VersorRigid3DTransform[itk.D].New()
    found.SetFixedParameters(method.GetTransform().GetFixedParameters())
    found.SetParameters(method.GetTransform().GetParameters())
    return LPS @ matrix_of(found) @ LPS, -float(optimiser.GetCurrentMetricValue())


def middle_of(affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """(x, y, z, 1) of the middle of a grid."""
    return affine @ [*((n - 1) / 2 for n in shape), 1]


def matrix_of(transform) -> np.ndarray:
    """An affine transform of ITK as a matrix (4, 4) in its world."""
    matrix = np.eye(4)
    matrix[:3, :3] = itk.array_from_matrix(transform.GetMatrix())
    matrix[:3, 3] = list(transform.GetOffset())
    return matrix


def itk_image(image: Nifti1Image):
    """The same voxels in the same place, float32."""
    affine = LPS @ image.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    copy = itk.image_from_array(np.ascontiguousarray(np.asarray(image.dataobj, np.float32).transpose(2, 1, 0)))
    copy.SetSpacing(spacing.tolist())
    copy.SetOrigin(affine[:3, 3].tolist())
    copy.SetDirection(itk.matrix_from_array(np.ascontiguousarray(affine[:3, :3] / spacing)))
    return copy
