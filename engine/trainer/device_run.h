// What of a run is on the device: the arena, the model in it, and how both grow when static capacity is exceeded.
#pragma once

#include <memory>
#include <string>

#include "engine/model/model.h"

namespace assay {

// Device memory that gives itself back.
class DeviceMemory {
 public:
  DeviceMemory(Ops& ops, size_t bytes, const char* what) : ops_(ops), data_(ops.allocate(bytes, what)) {}
  ~DeviceMemory() { ops_.release(data_); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  void* data() const { return data_; }

 private:
  Ops& ops_;
  void* data_;
};

class DeviceRun {
 public:
  // Throws EngineError(plan_error) or EngineError(out_of_memory).
  DeviceRun(const RunConfig&, Backend, Ops&, const PlanOptions& = {});

  Model& model() { return *model_; }
  const Model& model() const { return *model_; }
  const RunPlan& plan() const { return plan_; }
  Backend backend() const { return backend_; }
  int recaptures() const { return recaptures_; }
  const std::string& tiling() const { return tiling_; }  // Ops::choose_tiling's line
  // Static execution, on resume: what the run had grown to. The model is new if the capacity differs.
  void take_over_capacity(int64_t capacity, int recaptures);
  // Largest arena of the run so far, plus the backend's overhead.
  double peak_mem_mib() const { return peak_mem_mib_; }

  // Static execution: a plan in which the expert's rows fit, for a step that has updated nothing and is made again.
  // Throws EngineError(plan_error) once recompile_limit is used up.
  void grow(const CapacityExceeded&, int64_t step);
  // Sum of the losses of one micro-batch of validation; grows where it must.
  double evaluate(const int32_t* tokens, const int32_t* targets, int64_t step);

 private:
  void build();
  void choose_tiling();

  const RunConfig& config_;
  Backend backend_;
  Ops& ops_;
  PlanOptions options_;
  RunPlan plan_;
  std::unique_ptr<DeviceMemory> memory_;
  std::unique_ptr<Model> model_;
  std::string tiling_;
  int recaptures_ = 0;
  double peak_mem_mib_ = 0;
};

}  // namespace assay
