// Debian ships toml++ as a shared library only; its headers define the library here, once, as Debian compiles it: its
// assertions are for its developers, and damaged input trips them (3.3.0: a key that begins with a control character).
#define NDEBUG
#define TOML_IMPLEMENTATION
#include <toml++/impl/forward_declarations.h>
// 3.3.0 calls the characters U+FE66 to U+FEFE unreachable, but text can hold them: they belong to no class.
#undef TOML_UNREACHABLE
#define TOML_UNREACHABLE return false
#include <toml++/impl/unicode.h>
#undef TOML_UNREACHABLE
#define TOML_UNREACHABLE __builtin_unreachable()
#include <toml++/toml.h>
