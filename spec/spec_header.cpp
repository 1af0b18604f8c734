// The keys above the first table of a spec, and [retry].
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/limits.h"
#include "base/utf8.h"
#include "spec/spec_keys.h"
#include "spec/spec_sections.h"

namespace assay {
namespace {

constexpr std::span<const std::string_view> on_failure_names = word_texts<OnFailure>;

void read_integer(std::string_view path, const toml::node& node, int64_t low, int64_t high, int64_t& into,
                  SpecErrors& errors) {
  if (!node.is_integer())
    return errors.add(position_of(node), fmt::format("{} is {}; expected an integer", path, kind_of(node)));
  const int64_t value = node.as_integer()->get();
  if (value < low || value > high)
    return errors.add(position_of(node),
                      fmt::format("{} = {} is out of range; expected {} to {}", path, value, low, high));
  into = value;
}

void read_integer(std::string_view path, const toml::node& node, int64_t low, int64_t high, int& into,
                  SpecErrors& errors) {
  int64_t value = into;
  read_integer(path, node, low, high, value, errors);
  into = static_cast<int>(value);
}

void read_name(std::string_view path, const toml::node& node, std::string& into, SpecErrors& errors) {
  if (!node.is_string())
    return errors.add(position_of(node), fmt::format("{} is {}; expected a string", path, kind_of(node)));
  const std::string& name = node.as_string()->get();
  if (const auto problem = name_problem(name))
    return errors.add(position_of(node), fmt::format("{} {} {}", path, in_quotes(name), *problem));
  into = name;
}

void read_on_failure(const toml::node& node, OnFailure& into, SpecErrors& errors) {
  if (!node.is_string())
    return errors.add(position_of(node),
                      fmt::format("on_failure is {}; expected one of {}", kind_of(node), one_of(on_failure_names)));
  const std::string& text = node.as_string()->get();
  const auto found = find_word<OnFailure>(text);
  if (!found)
    return errors.add(position_of(node),
                      fmt::format("on_failure = {} is not known; expected {}{}", in_quotes(text),
                                  one_of(on_failure_names), did_you_mean(nearest(text, on_failure_names))));
  into = *found;
}

// All but none.
constexpr std::span<const std::string_view> reason_names = std::span(word_texts<FailureReason>).subspan<1>();

void read_reasons(const toml::node& node, std::vector<FailureReason>& into, SpecErrors& errors) {
  if (!node.is_array())
    return errors.add(position_of(node), fmt::format("retry.on is {}; expected an array of failure reasons, such as "
                                                     "[\"crashed\"]",
                                                     kind_of(node)));
  for (const toml::node& element : *node.as_array()) {
    const Position at = position_of(element);
    const auto* text = element.as_string();
    const auto reason = text ? find_word<FailureReason>(text->get()) : std::nullopt;
    if (!text) {
      errors.add(at, fmt::format("retry.on holds {}; expected strings: {}", kind_of(element), one_of(reason_names)));
    } else if (!reason || *reason == FailureReason::none) {
      errors.add(at, fmt::format("retry.on: {} is not a failure reason; expected {}{}", in_quotes(text->get()),
                                 one_of(reason_names), did_you_mean(nearest(text->get(), reason_names))));
    } else if (std::ranges::find(into, *reason) != into.end()) {
      errors.add(at, fmt::format("retry.on names \"{}\" twice; expected it once", text->get()));
    } else {
      into.push_back(*reason);
    }
  }
}

void unknown_retry_key(const toml::key& key, SpecErrors& errors) {
  const std::string_view name = key.str();
  const auto similar = nearest(name, retry_keys);
  std::string advice = fmt::format("; expected {}{}", one_of(retry_keys), did_you_mean(similar));
  if (place_for(name))
    advice = belongs_elsewhere(name);
  else if (find_field(name) != nullptr || std::ranges::find(config_groups(), name) != config_groups().end())
    advice = fmt::format("; what configures runs belongs in a table of its own; did you mean \"defaults.{}\"?", name);
  errors.add(position_of(key), fmt::format("unknown key {} in [retry]{}", in_quotes(name), advice));
}

void read_retry(const toml::node& node, RetryPolicy& retry, SpecErrors& errors) {
  const toml::table* table = node.as_table();
  if (table == nullptr)
    return errors.add(position_of(node), fmt::format("retry is {}; expected a table [retry]", kind_of(node)));
  for (const auto& [key, value] : entries_of(*table)) {
    if (key->str() == "max_attempts") {
      read_integer("retry.max_attempts", *value, 1, limits::max_attempts, retry.max_attempts, errors);
    } else if (key->str() == "on") {
      read_reasons(*value, retry.on, errors);
    } else if (key->str() == "backoff_s") {
      read_integer("retry.backoff_s", *value, 0, limits::backoff_s, retry.backoff_s, errors);
    } else {
      unknown_retry_key(*key, errors);
    }
  }
  // Half a policy retries nothing, which is not what its author meant.
  if (table->contains("max_attempts") && !table->contains("on") && retry.max_attempts > 1)
    errors.add(position_of(node), fmt::format("retry.max_attempts = {} without retry.on retries nothing; expected on = "
                                              "[...] with the failure reasons to retry",
                                              retry.max_attempts));
  if (table->contains("on") && !table->contains("max_attempts"))
    errors.add(position_of(node),
               "retry.on without retry.max_attempts retries nothing; expected max_attempts = 2 or more");
}

}  // namespace

bool read_header_key(std::string_view key, const toml::node& node, SpecHeader& header, SpecErrors& errors) {
  if (key == "experiment") {
    read_name(key, node, header.experiment, errors);
  } else if (key == "tag") {
    read_name(key, node, header.tag, errors);
  } else if (key == "baseline") {
    read_name(key, node, header.baseline, errors);
    header.baseline_at = position_of(node);
  } else if (key == "repeats") {
    read_integer(key, node, 1, limits::repeats, header.repeats, errors);
  } else if (key == "priority") {
    read_integer(key, node, -limits::priority, limits::priority, header.priority, errors);
  } else if (key == "on_failure") {
    read_on_failure(node, header.on_failure, errors);
  } else if (key == "retry") {
    read_retry(node, header.retry, errors);
  } else {
    return false;
  }
  return true;
}

}  // namespace assay
