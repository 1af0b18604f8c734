// Private to spec/: the cells of an experiment (matrix minus excludes plus explicit runs), named and complete.
#pragma once

#include <string>
#include <vector>

#include "spec/spec_sections.h"

namespace assay {

struct Cell {
  std::string name;
  RunConfig config;
  std::vector<const Setting*> settings;  // what set the config, the later in force; owned by SpecSections
  Position at;                           // where to report what concerns the cell as a whole
};

// Matrix cells first (the last axis runs fastest), then explicit runs in file order.
std::vector<Cell> expand_cells(const SpecSections& sections, SpecErrors& errors);

}  // namespace assay
