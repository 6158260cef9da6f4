"""An image made of this machine's own Python, without any registry.

The image has one layer: the interpreter that runs this module, the shared libraries that it and
its extension modules need, its standard library, and what the caller adds. What lies where:

    usr/local/bin, usr/local/lib/pythonX.Y    wherever this machine keeps them: Python finds its
                                              library by looking beside its program
    the dynamic loader                        at the path that the program names
    all other shared libraries                in the folder of the C library: the loader looks
                                              there without a cache or a variable that says so

There is no shell. The same Python, packages and files give the same image, to the last bit.

In reading order:

    build              puts the rest together, and hands the result to an engine
    tree               what a caller adds, and which parts of a file go into an image
    modules            Python, its standard library, packages of this environment
    shared_libraries   what these need
    elf                as much of the format of programs as that takes

`gridnode.image_archive` writes the result as `docker save` would.
"""

from gridnode.python_image.build import build_python_image, write_python_archive
from gridnode.python_image.tree import PythonImageError

__all__ = ["PythonImageError", "build_python_image", "write_python_archive"]
