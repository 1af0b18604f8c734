// A folder of token shards and what tests of the trainer do with it.
#pragma once

#include "engine/ops/error.h"
#include "engine/trainer/run_trainer.h"
#include "model_fixture.h"

namespace assay::testing {

class TrainerTest : public ::testing::Test {
 protected:
  TrainerTest() { write_shards(data_.path(), random_corpus(4000, 67, "train"), random_corpus(1200, 67, "val")); }

  RunConfig config(Precision precision = Precision::fp32) const {
    RunConfig c = tiny_config();
    c.precision = precision;
    c.model.sequence_len = 32;
    c.train.device_batch = 2;
    c.train.total_batch_tokens = 128;  // two micro-batches
    c.data.path = data_.path();
    return c;
  }
  static std::vector<StepMetrics> train(Trainer& trainer, int64_t until) {
    std::vector<StepMetrics> metrics;
    while (trainer.next_step() < until) metrics.push_back(trainer.step());
    return metrics;
  }
  static std::vector<double> losses(const RunConfig& c, int64_t steps) {
    std::vector<double> values;
    for (const StepMetrics& m : train(*Trainer::create(c, {}), steps)) values.push_back(m.loss);
    return values;
  }
  // The error a config ends in, at creation or in its first steps.
  static EngineError error_of(const RunConfig& c, const TrainerOptions& options = {}, int64_t steps = 5) {
    try {
      train(*Trainer::create(c, options), steps);
    } catch (const EngineError& e) {
      return e;
    }
    ADD_FAILURE() << "no error";
    return {FailureReason::none, ""};
  }

  TemporaryFolder data_;
};

class StaticTest : public TrainerTest {
 protected:
  // 512 tokens a micro-batch, 256 rows fair share: imbalance exceeds a factor of 1 at once.
  RunConfig tight() const {
    RunConfig c = config();
    c.execution = Execution::static_graph;
    c.model.sequence_len = 256;
    c.train.total_batch_tokens = 1024;
    c.capacity_factor = 1.0;
    return c;
  }
};

}  // namespace assay::testing
