#include "report/takeaways.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "report/comparison.h"
#include "report_support.h"

namespace assay {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string takeaways(const ReportInput& input) {
  const auto cells = report_cells(input);
  return takeaways_section(input, cells, cells.front());
}
std::string comparison(const ReportInput& input) {
  const auto cells = report_cells(input);
  return comparison_section(cells, cells.front());
}

// Two repeats of one cell.
std::vector<ReportRun> pair(int64_t id, const std::string& name, test::Numbers a, test::Numbers b,
                            Precision precision = Precision::bf16) {
  ReportRun first = test::completed(id, name, a);
  ReportRun second = test::completed(id + 1, name + "_repeat2", b);
  second.run.cell_key = first.run.cell_key;
  second.run.repeat = 2;
  second.config.train.seed = 2;
  first.config.precision = second.config.precision = precision;
  return {first, second};
}

ReportInput two_cells(test::Numbers a1, test::Numbers a2, test::Numbers b1, test::Numbers b2,
                      Precision b = Precision::fp8_experts) {
  std::vector<ReportRun> runs = pair(1, "base", a1, a2);
  for (ReportRun& run : pair(3, "other", b1, b2, b)) runs.push_back(std::move(run));
  return test::make_input(std::move(runs));
}

TEST(Comparison, RepeatsBecomeAMeanWithItsInterval) {
  const std::string text = comparison(two_cells({140, 4.0, 1000, 1, 1, 100, 1}, {140, 4.0, 1010, 1, 1, 100, 1},  //
                                                {140, 4.1, 2000, 1, 1, 80, 1}, {140, 4.1, 2010, 1, 1, 80, 1}));
  EXPECT_THAT(text,
              HasSubstr("| cell | repeats | steps | tok/sec | ratio | speed_verdict | tail50_loss | loss_diff | "
                        "loss_verdict | peak_mem_mib | mem_diff_mib | mem_verdict |\n"
                        "| --- | ---: | ---: | ---: | ---: | --- | ---: | ---: | --- | ---: | ---: | --- |\n"
                        "| base (baseline) | 2 | 140 | 1005 ± 64 | - | - | 4.0000 ± 0.0000 | - | - | 100.00 ± 0.00 | - "
                        "| - |\n"
                        "| other | 2 | 140 | 2005 ± 64 | 2.00x | faster | 4.1000 ± 0.0000 | +0.1000 | higher | 80.00 ± "
                        "0.00 | -20.00 | less |\n"));
}

// Speeds that overlap, losses almost eight half widths apart: t(1) = 12.706 times 0.005 is 0.0635.
TEST(Comparison, EveryMetricHasAVerdictOfItsOwn) {
  const ReportInput input = two_cells({140, 4.00, 1000, 1, 1, 100, 1}, {140, 4.01, 1100, 1, 1, 100, 1},  //
                                      {140, 4.50, 1050, 1, 1, 90, 1}, {140, 4.51, 1150, 1, 1, 90, 1});
  EXPECT_THAT(comparison(input),
              HasSubstr("| other | 2 | 140 | 1100 ± 635 | 1.05x | not distinguishable | 4.5050 ± 0.0635 | +0.5000 | "
                        "higher | 90.00 ± 0.00 | -10.00 | less |"));
  EXPECT_THAT(
      takeaways(input),
      HasSubstr("- FP8 against BF16: `other` runs at 1.05x the tok/sec of `base` (not distinguishable); its training "
                "loss, mean of the last 50 steps, differs by +0.5000 (+12.48 %); its peak memory by -10.00 MiB.\n"));
  // And the reverse: clear speeds, losses that overlap.
  const ReportInput reverse = two_cells({140, 4.0, 1000, 1, 1, 100, 1}, {140, 4.2, 1010, 1, 1, 110, 1},  //
                                        {140, 4.1, 500, 1, 1, 105, 1}, {140, 4.3, 510, 1, 1, 115, 1});
  EXPECT_THAT(comparison(reverse),
              HasSubstr("| 0.50x | slower | 4.2000 ± 1.2706 | +0.1000 | not distinguishable | 110.00 ± 63.53 | +5.00 | "
                        "not distinguishable |"));
  EXPECT_THAT(takeaways(reverse),
              HasSubstr("- Memory: the lowest peak is not distinguishable; `base` (105.00 ± 63.53 MiB) has the lowest "
                        "mean, but the 95 % intervals of the repeats overlap with `other` (110.00 ± 63.53 MiB).\n"));
}

TEST(Comparison, OverlappingRepeatsAreNotDistinguishable) {
  const ReportInput input = two_cells({140, 4.0, 1000, 1, 1, 100, 1}, {140, 4.2, 1100, 1, 1, 100, 1},  //
                                      {140, 4.1, 1050, 1, 1, 101, 1}, {140, 4.3, 1150, 1, 1, 101, 1});
  EXPECT_THAT(comparison(input), HasSubstr("| not distinguishable |"));
  const std::string text = takeaways(input);
  EXPECT_THAT(text,
              HasSubstr("- Fastest: not distinguishable; `other` (1100 ± 635 tok/sec) has the highest mean, but the "
                        "95 % intervals of the repeats overlap with `base` (1050 ± 635 tok/sec).\n"));
  EXPECT_THAT(text, HasSubstr("differs by +0.1000 (+2.44 %) (not distinguishable); "));
  EXPECT_THAT(text, HasSubstr("- Training loss after 140 steps, mean of the last 50 steps: from 4.1000 ± 1.2706 "
                              "(`base`) to 4.2000 ± 1.2706 (`other`), a gap of 0.1000 (2.44 %) (not distinguishable"));
  EXPECT_THAT(text,
              HasSubstr("- Memory: `base` has the lowest peak, 100.00 ± 0.00 MiB; `base` is the baseline: nothing"));
}

TEST(Takeaways, CellsOfEqualMemoryShareTheLowestPeak) {
  const std::string text = takeaways(two_cells({140, 4.0, 1000, 1, 1, 100, 1}, {140, 4.0, 1010, 1, 1, 100, 1},  //
                                               {140, 4.1, 2000, 1, 1, 100, 1}, {140, 4.1, 2010, 1, 1, 100, 1}));
  EXPECT_THAT(text, HasSubstr("- Memory: `base`, `other` have the lowest peak, 100.00 ± 0.00 MiB; `base` is the "
                              "baseline: nothing saves memory against it.\n"));
  EXPECT_THAT(text, HasSubstr("- \"Not distinguishable\" means that the 95 % intervals of the repeats overlap.\n"));
}

// A cell of which one repeat failed is not a cell of two.
TEST(Comparison, RepeatsThatAreMissingAreCounted) {
  ReportInput input = two_cells({140, 4.0, 1000, 1, 1, 100, 1}, {140, 4.0, 1010, 1, 1, 100, 1},  //
                                {140, 4.1, 2000, 1, 1, 80, 1}, {140, 4.1, 2010, 1, 1, 80, 1});
  input.runs[3].run.state = RunState::failed;
  EXPECT_THAT(comparison(input),
              HasSubstr("| other | 1 of 2 | 140 | 2000 | 1.99x | no repeats | 4.1000 | +0.1000 | no repeats |"));
  EXPECT_THAT(takeaways(input), HasSubstr("(20.0 %) less than the baseline `base` (without repeats of both"));
}

TEST(Comparison, ADivergedRepeatLeavesNoVerdict) {
  ReportInput input = two_cells({140, 4.0, 1000, 1, 1, 100, 1}, {140, 4.0, 1010, 1, 1, 100, 1},  //
                                {140, 3.1, 2000, 1, 1, 80, 1}, {140, std::nan(""), 2010, 1, 1, 80, 1});
  EXPECT_THAT(comparison(input), HasSubstr("| faster | 3.1000 (1 more not finite) | -0.9000 | not finite |"));
  EXPECT_THAT(takeaways(input),
              HasSubstr("a gap of 0.9000 (29.03 %) (not finite in every repeat, so no verdict); not finite in "
                        "`other`.\n"));
}

TEST(Comparison, ThereIsNoVerdictWithoutRepeats) {
  const ReportInput input = test::reference_input();
  EXPECT_THAT(comparison(input), HasSubstr("| no repeats |"));
  for (const char* verdict : {"faster", "slower", "lower", "higher", "| less", "| more"})
    EXPECT_THAT(comparison(input), Not(HasSubstr(verdict)));
  EXPECT_THAT(comparison(input), HasSubstr("No cell has completed repeats: no interval can be given"));
  EXPECT_THAT(takeaways(input),
              HasSubstr("- There are no completed repeats, so no difference below carries an interval"));
}

TEST(Comparison, LossesOfDifferentLengthsAreNotCompared) {
  const std::string text = comparison(test::reference_input());
  EXPECT_THAT(text,
              HasSubstr("| moe_fp8_experts_dynamic_long | 1 | 360 | 799038 | 0.81x | no repeats | 3.5310 | - | - |"));
  EXPECT_THAT(text,
              HasSubstr("Losses are compared only between cells with the same number of steps on the same data."));
  ReportInput other_data = two_cells({}, {}, {}, {});
  other_data.runs[2].config.data.path = other_data.runs[3].config.data.path = "/another";
  EXPECT_THAT(comparison(other_data), HasSubstr("| 0.0000 ± 0.0000 | - | - |"));
  EXPECT_THAT(takeaways(other_data), Not(HasSubstr("raining loss")));
}

TEST(Takeaways, SayWhatTheReferenceSays) {
  const std::string text = takeaways(test::reference_input());
  EXPECT_THAT(
      text,
      HasSubstr("- Fastest: `moe_fp8_noexperts_static` (982070 tok/sec), 1.04x the next, `moe_bf16_experts_dynamic`"));
  EXPECT_THAT(text, HasSubstr("- Memory: `moe_fp8_experts_dynamic_long` has the lowest peak, 19665.65 MiB: 3566.26 MiB "
                              "(15.4 %) less than the baseline"));
  EXPECT_THAT(text, HasSubstr("- FP8 against BF16: `moe_fp8_experts_dynamic_retry2` runs at 0.82x the tok/sec of "
                              "`moe_bf16_experts_dynamic`"));
  EXPECT_THAT(text,
              HasSubstr("- Execution modes, fp8_experts, 140 steps: `moe_fp8_experts_dynamic_retry2` (dynamic) is the "
                        "fastest at 781338 tok/sec; "
                        "1.64x that of `moe_fp8_experts_static` (static); "
                        "2.13x that of `moe_fp8_experts_nocompile` (eager)"));
  EXPECT_THAT(text, HasSubstr("- Long run `moe_fp8_experts_dynamic_long`: completed 360 of 360 steps, every observed "
                              "loss finite; training loss, mean of the last 50 steps, 3.5310.\n"
                              "- Long run `moe_fp8_experts_dynamic_long`: runs at 1.02x the tok/sec of the shorter "
                              "`moe_fp8_experts_dynamic_retry2`.\n"));
  EXPECT_THAT(text, HasSubstr("- Failed: 1 of 8 runs (1 `plan_error`)."));
  EXPECT_THAT(text, HasSubstr("- Completed after a failed attempt: 1 of 8 runs."));
}

TEST(Takeaways, FailedAndRunningRunsDoNotCount) {
  ReportInput input = test::reference_input();
  for (ReportRun& run : input.runs)
    if (run.run.name == "moe_fp8_noexperts_static") run.run.state = RunState::running;
  EXPECT_THAT(takeaways(input), HasSubstr("- Fastest: `moe_bf16_experts_dynamic`"));
}

TEST(Takeaways, PairsMustDifferInPrecisionAlone) {
  ReportInput input =
      two_cells({140, 4, 1, 1, 1, 1, 1}, {140, 4, 1, 1, 1, 1, 1}, {140, 4, 1, 1, 1, 1, 1}, {140, 4, 1, 1, 1, 1, 1});
  input.runs[2].config.model.depth = input.runs[3].config.model.depth = 24;
  EXPECT_THAT(takeaways(input),
              HasSubstr("no completed FP8 cell has a completed BF16 cell with otherwise equal settings"));
}

TEST(Takeaways, LossesThatAreNotFiniteAreCountedNotAveraged) {
  ReportInput input = test::reference_input();
  ReportRun& run = input.runs.back();
  run.attempts[0].steps = {{.step = 0, .loss = 1}, {.step = 1, .loss = std::nan("")}};
  const std::string text = takeaways(input);
  EXPECT_THAT(text, HasSubstr("completed 360 of 360 steps, 1 of its 360 observed losses not finite"));
  EXPECT_THAT(
      comparison(input),
      HasSubstr("| moe_fp8_experts_dynamic_long | 1 | 360 | 799038 | 0.81x | no repeats | not finite | - | - |"));
}

}  // namespace
}  // namespace assay
