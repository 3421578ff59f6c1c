"""The swipe with the real VTK, where that is installed; Slicer brings its own."""

import numpy as np
import pytest

vtk = pytest.importorskip("vtk", reason="needs VTK (pip install vtk), which nothing else here does")

WIDTH, HEIGHT = 60, 40
INPUT, RESULT, LINE = (200, 0, 0), (0, 150, 0), (255, 204, 51)


def picture(colour):
    """One colour, as Slicer draws a layer."""
    from vtk.util.numpy_support import numpy_to_vtk

    image = vtk.vtkImageData()
    image.SetDimensions(WIDTH, HEIGHT, 1)
    pixels = np.tile(np.array([*colour, 255], np.uint8), (WIDTH * HEIGHT, 1))
    image.GetPointData().SetScalars(numpy_to_vtk(pixels, deep=1))
    producer = vtk.vtkTrivialProducer()
    producer.SetOutput(image)
    return producer


def seen(window):
    """The colours of a row in the middle of the window, from left to right."""
    from vtk.util.numpy_support import vtk_to_numpy

    window.Render()
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(window)
    grab.ReadFrontBufferOff()
    grab.Update()
    pixels = vtk_to_numpy(grab.GetOutput().GetPointData().GetScalars()).reshape(HEIGHT, WIDTH, -1)
    return [tuple(int(v) for v in colour[:3]) for colour in pixels[HEIGHT // 2]]


@pytest.mark.slow
def test_the_result_is_left_of_the_line_and_the_input_right_of_it(anew):
    from InterSliceReconstructionLib.swipe import Swipe

    window, renderer = vtk.vtkRenderWindow(), vtk.vtkRenderer()
    window.SetOffScreenRendering(1)
    window.SetMultiSamples(0)
    window.SetSize(WIDTH, HEIGHT)
    window.AddRenderer(renderer)
    background = picture(INPUT)
    mapper, actor = vtk.vtkImageMapper(), vtk.vtkActor2D()
    mapper.SetColorWindow(255)
    mapper.SetColorLevel(127.5)
    mapper.SetInputConnection(background.GetOutputPort())
    actor.SetMapper(mapper)
    renderer.AddViewProp(actor)
    foreground = picture(RESULT)
    swipe = Swipe(renderer, foreground.GetOutputPort())
    for share in (0.5, 0.0, 0.25, 1.0):
        swipe.move(share, WIDTH, HEIGHT)
        row, column = seen(window), round(share * WIDTH)
        assert set(row[: max(column - 2, 0)]) <= {RESULT} and set(row[column + 2 :]) <= {INPUT}, share
        assert share == 0.0 or LINE in row[column - 2 : column + 2]
    swipe.remove()
    assert set(seen(window)) == {INPUT}
