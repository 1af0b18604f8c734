// Debian ships toml++ as a shared library only; its headers define the library here, once.
#define TOML_IMPLEMENTATION
#include <toml++/toml.h>
