#include "spec/config_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <type_traits>
#include <vector>

namespace assay {
namespace {

// member<&RunConfig::model, &ModelConfig::depth>(config) is config.model.depth.
template <auto... Members, class Config>
auto& member(Config& config) {
  return (config.*....*Members);
}

template <auto... Members>
ConfigValue get_value(const RunConfig& config) {
  const auto& value = member<Members...>(config);
  using T = std::remove_cvref_t<decltype(value)>;
  if constexpr (std::is_enum_v<T>) {
    return std::string(to_string(value));
  } else if constexpr (std::is_same_v<T, int>) {
    return int64_t{value};
  } else {
    return value;
  }
}

template <auto... Members>
void set_value(RunConfig& config, const ConfigValue& from) {
  auto& value = member<Members...>(config);
  using T = std::remove_cvref_t<decltype(value)>;
  if constexpr (std::is_enum_v<T>) {
    value = find_word<T>(std::get<std::string>(from)).value();
  } else if constexpr (std::is_same_v<T, int>) {
    value = static_cast<int>(std::get<int64_t>(from));
  } else {
    value = std::get<T>(from);
  }
}

template <auto... Members>
ConfigField field(std::string_view path) {
  using T = std::remove_cvref_t<decltype(member<Members...>(std::declval<RunConfig&>()))>;
  ConfigField f{.path = path, .get = get_value<Members...>, .set = set_value<Members...>};
  if constexpr (std::is_enum_v<T>) {
    f.kind = ValueKind::choice;
    f.choices = word_texts<T>;
  } else if constexpr (std::is_same_v<T, bool>) {
    f.kind = ValueKind::boolean;
  } else if constexpr (std::is_integral_v<T>) {
    f.kind = ValueKind::integer;
    f.smallest = std::numeric_limits<T>::min();
    f.largest = std::numeric_limits<T>::max();
  } else if constexpr (std::is_same_v<T, double>) {
    f.kind = ValueKind::real;
  }
  return f;
}

template <auto... Members>
ConfigField label(std::string_view path) {
  ConfigField f = field<Members...>(path);
  f.is_label = true;
  return f;
}

std::vector<ConfigField> make_fields() {
  using R = RunConfig;
  using M = ModelConfig;
  using T = TrainConfig;
  using F = Fp8Config;
  return {
      label<&R::preset>("preset"),
      field<&R::devices>("devices"),
      field<&R::backend>("backend"),
      field<&R::precision>("precision"),
      field<&R::execution>("execution"),
      field<&R::coalesce_tiling>("coalesce_tiling"),
      field<&R::capacity_factor>("capacity_factor"),
      field<&R::recompile_limit>("recompile_limit"),
      field<&R::model, &M::depth>("model.depth"),
      field<&R::model, &M::d_model>("model.d_model"),
      field<&R::model, &M::head_dim>("model.head_dim"),
      field<&R::model, &M::experts>("model.experts"),
      field<&R::model, &M::top_k>("model.top_k"),
      field<&R::model, &M::vocab_size>("model.vocab_size"),
      field<&R::model, &M::sequence_len>("model.sequence_len"),
      field<&R::model, &M::window_pattern>("model.window_pattern"),
      field<&R::model, &M::value_embeddings>("model.value_embeddings"),
      field<&R::model, &M::residual_lambdas>("model.residual_lambdas"),
      field<&R::model, &M::softcap>("model.softcap"),
      field<&R::model, &M::router_bias_rate>("model.router_bias_rate"),
      field<&R::model, &M::rope_base>("model.rope_base"),
      field<&R::train, &T::steps>("train.steps"),
      field<&R::train, &T::total_batch_tokens>("train.total_batch_tokens"),
      field<&R::train, &T::device_batch>("train.device_batch"),
      field<&R::train, &T::seed>("train.seed"),
      field<&R::train, &T::matrix_lr>("train.matrix_lr"),
      field<&R::train, &T::embedding_lr>("train.embedding_lr"),
      field<&R::train, &T::unembedding_lr>("train.unembedding_lr"),
      field<&R::train, &T::scalar_lr>("train.scalar_lr"),
      field<&R::train, &T::weight_decay>("train.weight_decay"),
      field<&R::train, &T::warmup_steps>("train.warmup_steps"),
      field<&R::train, &T::warmdown_ratio>("train.warmdown_ratio"),
      field<&R::train, &T::final_lr_frac>("train.final_lr_frac"),
      field<&R::train, &T::val_every>("train.val_every"),
      field<&R::train, &T::val_tokens>("train.val_tokens"),
      field<&R::train, &T::checkpoint_every>("train.checkpoint_every"),
      field<&R::train, &T::deterministic>("train.deterministic"),
      field<&R::train, &T::timeout_s>("train.timeout_s"),
      field<&R::fp8, &F::recipe>("fp8.recipe"),
      field<&R::fp8, &F::wgrad>("fp8.wgrad"),
      field<&R::fp8, &F::grad_format>("fp8.grad_format"),
      field<&R::fp8, &F::lm_head>("fp8.lm_head"),
      field<&R::data, &DataConfig::path>("data.path"),
      field<&R::fault, &FaultConfig::kind>("fault.kind"),
      field<&R::fault, &FaultConfig::step>("fault.step"),
      field<&R::fault, &FaultConfig::attempts>("fault.attempts"),
  };
}

constexpr std::array<std::string_view, 5> groups = {"model", "train", "fp8", "data", "fault"};

}  // namespace

std::string_view ConfigField::group() const {
  const size_t dot = path.rfind('.');
  return dot == std::string_view::npos ? std::string_view{} : path.substr(0, dot);
}

std::string_view ConfigField::last() const {
  return path.substr(path.rfind('.') + 1);  // npos + 1 is 0
}

std::span<const ConfigField> config_fields() {
  static const std::vector<ConfigField> fields = make_fields();
  return fields;
}

const ConfigField* find_field(std::string_view path) {
  const auto fields = config_fields();
  const auto found = std::ranges::find(fields, path, &ConfigField::path);
  return found == fields.end() ? nullptr : &*found;
}

std::span<const std::string_view> config_groups() {
  return groups;
}

std::string plain_text(const ConfigValue& value) {
  return std::visit([](const auto& v) { return fmt::format("{}", v); }, value);
}

}  // namespace assay
