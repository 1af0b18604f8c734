#include "tests/support/paths.h"

namespace assay {

std::string source_dir() {
  return ASSAY_SOURCE_DIR;
}
std::string bin_dir() {
  return ASSAY_BIN_DIR;
}

}  // namespace assay
