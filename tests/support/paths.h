// Where the tests' files and programs are. Compiled into one source file alone, so that the objects of the tests are
// the same in every clone and ccache finds them.
#pragma once

#include <string>

namespace assay {

std::string source_dir();  // the root of the repository
std::string bin_dir();     // the built programs

}  // namespace assay
