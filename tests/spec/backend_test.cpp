#include "spec/backend.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "tests/support/paths.h"

namespace assay {
namespace {

using testing::HasSubstr;

constexpr const BackendLimits* every_backend[] = {&cpu_limits, &cuda_limits, &cuda_fp8_limits};

// A run that every backend takes.
RunSizes small_run() {
  RunSizes sizes{};
  sizes.fill(16);
  sizes[static_cast<size_t>(RunSize::devices)] = 1;
  sizes[static_cast<size_t>(RunSize::head_dim)] = 64;
  return sizes;
}

// Every limit of every backend: what is within passes, one step beyond it is refused by name, value and rule.
TEST(BackendLimits, TakeWhatIsWithinAndRefuseOneBeyond) {
  for (const BackendLimits* backend : every_backend) {
    ASSERT_EQ(size_problem(*backend, small_run()), std::nullopt);
    for (size_t i = 0; i < run_size_count; ++i) {
      const auto size = static_cast<RunSize>(i);
      const Bound& bound = (*backend)[size];
      const auto problem = [&](int64_t value) {
        RunSizes sizes = small_run();
        sizes[i] = value;
        return size_problem(*backend, sizes);
      };
      const std::string what = fmt::format("{}: {}", backend->name, to_string(size));
      const auto refused = [&](int64_t value) {
        const auto text = problem(value);
        ASSERT_TRUE(text.has_value()) << what << " = " << value;
        EXPECT_EQ(*text, refusal(*backend, size, value));
        EXPECT_THAT(*text, testing::StartsWith(std::string(to_string(size)))) << what;
        EXPECT_THAT(*text, HasSubstr(fmt::format(" = {}; {} takes {}", value, backend->name, bound.rule())));
      };
      if (bound.only[0] != 0) {
        for (const int64_t value : bound.only) EXPECT_EQ(problem(value), std::nullopt) << what << " = " << value;
        for (const int64_t value : {bound.only[0] - 1, bound.only[0] + 8, bound.only[1] + 8}) refused(value);
      }
      if (bound.most != INT64_MAX) {
        const int64_t last = bound.most / bound.multiple * bound.multiple;
        EXPECT_EQ(problem(last), std::nullopt) << what << " = " << last;
        refused(last + bound.multiple);
      }
      if (bound.multiple > 1) {
        EXPECT_EQ(problem(3 * bound.multiple), std::nullopt) << what;
        refused(3 * bound.multiple + 1);
      }
    }
  }
}

TEST(BackendLimits, SayTheirRule) {
  EXPECT_EQ(Bound{}.rule(), "any");
  EXPECT_EQ(refusal(cuda_limits, RunSize::experts, 129), "model.experts = 129; the cuda backend takes at most 128");
  EXPECT_EQ(refusal(cuda_fp8_limits, RunSize::width, 8),
            "the model width (model.d_model, or 64 * model.depth) = 8; the cuda backend in FP8 takes at most 4096, "
            "multiples of 16");
  EXPECT_EQ(refusal(cuda_limits, RunSize::head_dim, 32), "model.head_dim = 32; the cuda backend takes 64 or 128");
}

// The table of the docs, line by line.
TEST(BackendLimits, AreWhatTheDocsSay) {
  const auto docs = read_file(source_dir() + "/docs/spec.md", 1 << 20);
  ASSERT_TRUE(docs.ok());
  for (const Word& word : words_of(RunSize{})) {
    const auto size = *find_word<RunSize>(word.text);
    std::string name = word.text.find('.') == std::string_view::npos && size != RunSize::devices
                           ? std::string(word.text)
                           : fmt::format("`{}`", word.text);
    if (!word.meaning.empty()) name += fmt::format(" ({})", word.meaning);
    EXPECT_THAT(*docs,
                HasSubstr(fmt::format("\n| {} | {} | {} | {} | {} |\n", name, cpu_limits[size].rule(),
                                      cuda_limits[size].rule(), cuda_fp8_limits[size].rule(), cuda_limits[size].why)));
  }
}

TEST(Backend, PrecisionsOfEach) {
  for (size_t i = 0; i < words_of(Precision{}).size(); ++i) {
    const auto precision = static_cast<Precision>(i);
    EXPECT_EQ(precision_problem(Backend::cpu, precision), std::nullopt);
    EXPECT_EQ(precision_problem(Backend::automatic, precision), std::nullopt);
    EXPECT_EQ(precision_problem(Backend::cuda, precision).has_value(), precision == Precision::fp32);
  }
  EXPECT_EQ(&limits_of(Backend::cuda, Precision::bf16), &cuda_limits);
  EXPECT_EQ(&limits_of(Backend::cuda, Precision::fp8_noexperts), &cuda_fp8_limits);
  EXPECT_EQ(&limits_of(Backend::cuda, Precision::fp8_experts), &cuda_fp8_limits);
  EXPECT_EQ(&limits_of(Backend::cpu, Precision::fp8_experts), &cpu_limits);
}

// One answer for the forecast, the scheduler and the trainer.
TEST(Backend, AutomaticIsAGpuWhereThereAreEnoughAndItComputesThePrecision) {
  RunConfig config;
  const auto decided = [&](Precision precision, Backend backend, int devices, int64_t gpus) {
    config.precision = precision, config.backend = backend, config.devices = devices;
    return decide_backend(wanted_backend(config), config.devices, gpus);
  };
  EXPECT_EQ(decided(Precision::bf16, Backend::automatic, 1, 0), Backend::cpu);
  EXPECT_EQ(decided(Precision::bf16, Backend::automatic, 1, 1), Backend::cuda);
  EXPECT_EQ(decided(Precision::fp8_experts, Backend::automatic, 2, 1), Backend::cpu);
  EXPECT_EQ(decided(Precision::fp8_experts, Backend::automatic, 2, 2), Backend::cuda);
  EXPECT_EQ(decided(Precision::fp32, Backend::automatic, 1, 8), Backend::cpu);
  EXPECT_EQ(decided(Precision::fp32, Backend::cpu, 1, 8), Backend::cpu);
  EXPECT_EQ(decided(Precision::bf16, Backend::cpu, 1, 8), Backend::cpu);
  EXPECT_EQ(decided(Precision::bf16, Backend::cuda, 1, 0), Backend::cuda);
}

}  // namespace
}  // namespace assay
