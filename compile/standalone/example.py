"""A C program of some thirty lines that runs a standalone network."""

from __future__ import annotations

from shuffledeploy.compiler.standalone.c_interface import CInterface

EXAMPLE = "example.c"

_CLASSIFIES = """\
/* Classifies a picture:
 *   cc example.c lib@name@.a -o classify && ./classify picture.@suffix@ */
#include <stdio.h>
#include "@name@.h"

enum { CHANNELS = @channels@, HEIGHT = @height@, WIDTH = @width@, PIXELS = HEIGHT * WIDTH };

int main(int argc, char **argv) {
  static const float mean[] = @mean@, std[] = @std@;@yours@
  static _Alignas(64) float input[@INPUT@_ELEMENTS], output[@OUTPUT@_ELEMENTS];
  static _Alignas(64) unsigned char workspace[@UPPER@_WORKSPACE_BYTES];
  static unsigned char picture[PIXELS * CHANNELS];
  FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
  int width = 0, height = 0;
  /* After its first line, such a file holds rows of pixels, @order@. */
  if (!file || fscanf(file, "@magic@ %d %d 255", &width, &height) != 2 || fgetc(file) == EOF ||
      width != WIDTH || height != HEIGHT || fread(picture, sizeof picture, 1, file) != 1) {
    fprintf(stderr, "usage: %s PICTURE.@suffix@, %d x %d pixels\\n", argv[0], WIDTH, HEIGHT);
    return 2;
  }
  fclose(file);
  for (int i = 0; i < PIXELS; ++i)
    for (int c = 0; c < CHANNELS; ++c)
      input[c * PIXELS + i] = (picture[i * CHANNELS + c] / 255.0f - mean[c]) / std[c];
  const int status = @name@_run(input, output, workspace);
  if (status) return fprintf(stderr, "@name@_run: status %d\\n", status), 1;
  int best = 0;
  for (int i = 1; i < @OUTPUT@_ELEMENTS; ++i)
    if (output[i] > output[best]) best = i;
  printf("class %d, logit %.4f\\n", best, output[best]);
  return 0;
}
"""

_RUNS = """\
/* Runs the network on zeros:
 *   cc example.c lib@name@.a -o example && ./example */
#include <stdio.h>
#include "@name@.h"

int main(void) {
@buffers@
  static _Alignas(64) unsigned char workspace[@UPPER@_WORKSPACE_BYTES];
  const int status = @name@_run(@arguments@, workspace);
  if (status) return fprintf(stderr, "@name@_run: status %d\\n", status), 1;
  printf("@first@[0] = %g\\n", (double)@first@[0]);
  return 0;
}
"""


def example(interface: CInterface) -> str:
    """Write the program: it classifies a picture where the network does, else it runs on zeros."""
    words = {"name": interface.name, "UPPER": interface.name.upper()}
    image = _image_words(interface)
    if image is None:
        return _filled(_RUNS, words | _plain_words(interface))
    return _filled(_CLASSIFIES, words | image)


def _image_words(interface: CInterface) -> dict[str, str] | None:
    """Fill the gaps for a picture; None where the network does not take one and classify it."""
    if len(interface.inputs) != 1 or len(interface.outputs) != 1:
        return None
    (given,), (answer,) = interface.inputs, interface.outputs
    shape = given.tensor.shape
    if len(shape) != 4 or shape[0] != 1 or shape[1] not in (1, 3):
        return None
    if {given.tensor.dtype, answer.tensor.dtype} != {"float32"}:
        return None
    colour, upper = shape[1] == 3, interface.name.upper()
    statistics = {"mean": f"{upper}_MEAN", "std": f"{upper}_STD", "yours": ""}
    if interface.normalisation is None:
        nought, one = (", ".join([value] * shape[1]) for value in ("0", "1"))
        yours = " /* of its training */"
        statistics = {"mean": f"{{{nought}}}", "std": f"{{{one}}}", "yours": yours}
    return statistics | {
        "channels": str(shape[1]), "height": str(shape[2]), "width": str(shape[3]),
        "suffix": "ppm" if colour else "pgm", "magic": "P6" if colour else "P5",
        "order": "a byte each of red, green and blue" if colour else "a byte each",
        "INPUT": interface.macro(given),
        "OUTPUT": interface.macro(answer),
    }  # fmt: skip


def _plain_words(interface: CInterface) -> dict[str, str]:
    tensors = (*interface.inputs, *interface.outputs)
    buffers = [
        f"  static _Alignas(64) {tensor.c_type} {tensor.name}[{interface.macro(tensor)}_ELEMENTS];"
        for tensor in tensors
    ]
    return {
        "buffers": "\n".join(buffers),
        "arguments": ", ".join(parameter.name for parameter in tensors),
        "first": interface.outputs[0].name,
    }


def _filled(template: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        template = template.replace(f"@{word}@", value)
    return template
