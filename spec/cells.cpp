#include "spec/cells.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "base/file.h"
#include "base/limits.h"

namespace assay {
namespace {

// The part of a run name that tells one value of `field`: "fp8_experts", "coalesce_tiling0", "matrix_lr0.02",
// "recipe-rowwise".
std::string name_part(const ConfigField& field, const ConfigValue& value) {
  if (field.path == "precision" || field.path == "execution") return plain_text(value);
  if (const bool* flag = std::get_if<bool>(&value)) return fmt::format("{}{}", field.last(), *flag ? 1 : 0);
  std::string text = plain_text(value);
  std::erase(text, '+');  // 1e+20
  if (field.kind == ValueKind::integer || field.kind == ValueKind::real) return fmt::format("{}{}", field.last(), text);
  for (char& c : text)
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '.' && c != '_') c = '-';
  return fmt::format("{}-{}", field.last(), text);
}

// A name that would be too long keeps its beginning and gets a hash of the whole, so that it stays the same for the
// same axes and differs for different ones: 12 hex digits make two of 10,000 runs alike once in six million
// experiments, and then the spec is refused.
std::string shortened(const std::string& name) {
  static constexpr size_t longest = limits::name_chars - limits::repeat_suffix_chars, digits = 12;
  if (name.size() <= longest) return name;
  return fmt::format("{}_{}", name.substr(0, longest - digits - 1), sha256_hex(name).substr(0, digits));
}

std::string derived_name(const std::vector<const ConfigField*>& fields, const RunConfig& config) {
  if (fields.empty()) return fmt::format("moe_{}_{}", to_string(config.precision), to_string(config.execution));
  std::string name = "moe";
  for (const ConfigField* field : fields) name += "_" + name_part(*field, field->get(config));
  return shortened(name);
}

class Expansion {
 public:
  Expansion(const SpecSections& sections, SpecErrors& errors) : sections_(sections), errors_(errors) {
    for (const Axis& axis : sections.axes)
      if (axis.values.size() > 1) varying_.push_back(axis.field);
  }

  std::vector<Cell> run() {
    if (!fits()) return {};
    if (sections_.has_matrix || sections_.runs.empty()) add_matrix_cells();
    apply_excludes();
    for (const ExplicitRun& run : sections_.runs) add_explicit_run(run);
    if (cells_.empty() && errors_.empty())
      errors_.add(sections_.matrix_at, "every cell of [matrix] is excluded; expected at least one run");
    return std::move(cells_);
  }

 private:
  // Nothing may be allocated for a matrix that is too large.
  bool fits() {
    int64_t cells = 1;
    for (const Axis& axis : sections_.axes)
      cells = std::min<int64_t>(limits::runs_per_experiment + 1, cells * static_cast<int64_t>(axis.values.size()));
    if (cells > limits::runs_per_experiment) {
      errors_.add(sections_.matrix_at, fmt::format("[matrix] has more than {} cells; expected at most that many",
                                                   limits::runs_per_experiment));
      return false;
    }
    if (sections_.excludes.size() > limits::excludes) {
      errors_.add(sections_.excludes[limits::excludes].at, fmt::format("the spec has {} excludes; expected at most {}",
                                                                       sections_.excludes.size(), limits::excludes));
      return false;
    }
    return true;
  }

  Cell make_cell(std::vector<const Setting*> settings, Position at) const {
    Cell cell{.settings = std::move(settings), .at = at};
    cell.config = config_of(cell.settings);
    return cell;
  }

  std::vector<const Setting*> default_settings() const {
    std::vector<const Setting*> settings;
    for (const Setting& setting : sections_.defaults) settings.push_back(&setting);
    return settings;
  }

  void add_matrix_cells() {
    std::vector<size_t> index(sections_.axes.size(), 0);
    while (true) {
      auto settings = default_settings();
      for (size_t i = 0; i < index.size(); ++i) settings.push_back(&sections_.axes[i].values[index[i]]);
      Cell cell = make_cell(std::move(settings), sections_.matrix_at);
      cell.name = derived_name(varying_, cell.config);
      cells_.push_back(std::move(cell));
      size_t axis = index.size();  // count up, the last axis first
      while (axis > 0 && ++index[axis - 1] == sections_.axes[axis - 1].values.size()) index[--axis] = 0;
      if (axis == 0) return;
    }
  }

  void apply_excludes() {
    std::vector<char> excluded(cells_.size(), 0);
    std::vector<Position> unused;
    for (const Exclude& exclude : sections_.excludes) {
      bool used = false;
      for (size_t i = 0; i < cells_.size(); ++i) {
        const bool match = !exclude.values.empty() && std::ranges::all_of(exclude.values, [&](const Setting& s) {
          return s.field->get(cells_[i].config) == s.value;
        });
        used |= match;
        excluded[i] |= match;
      }
      if (!used) unused.push_back(exclude.at);
    }
    size_t i = 0;
    std::erase_if(cells_, [&](const Cell&) { return excluded[i++] != 0; });
    if (!errors_.empty()) return;  // the cells may not be the ones that were meant
    for (const Position at : unused)
      errors_.add(at, "[[exclude]] matches no cell of [matrix]; expected values that at least one cell has");
  }

  void add_explicit_run(const ExplicitRun& run) {
    auto settings = default_settings();
    auto named_by = varying_;
    for (const Setting& setting : run.settings) {
      settings.push_back(&setting);
      if (std::ranges::find(named_by, setting.field) == named_by.end()) named_by.push_back(setting.field);
    }
    Cell cell = make_cell(std::move(settings), run.at);
    cell.name = run.named ? run.name : derived_name(named_by, cell.config);
    cells_.push_back(std::move(cell));
  }

  const SpecSections& sections_;
  SpecErrors& errors_;
  std::vector<const ConfigField*> varying_;  // axes with more than one value
  std::vector<Cell> cells_;
};

}  // namespace

std::vector<Cell> expand_cells(const SpecSections& sections, SpecErrors& errors) {
  return Expansion(sections, errors).run();
}

}  // namespace assay
