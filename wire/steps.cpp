#include "wire/steps.h"

namespace assay {

void fill(v1::StepMetrics& out, const StepMetrics& m) {
  out.set_step(m.step);
  out.set_loss(m.loss);
  out.set_dt_ms(m.dt_ms);
  out.set_tok_per_sec(m.tok_per_sec);
  out.set_mfu(m.mfu);
  out.set_lr_scale(m.lr_scale);
  out.set_grad_norm(m.grad_norm);
  out.set_expert_load_min(m.expert_load_min);
  out.set_expert_load_max(m.expert_load_max);
  out.set_peak_mem_mib(m.peak_mem_mib);
  out.set_val_loss(m.val_loss);
  out.set_unix_ms(m.unix_ms);
}

StepMetrics from_proto(const v1::StepMetrics& in) {
  StepMetrics m;
  m.step = in.step();
  m.loss = in.loss();
  m.dt_ms = in.dt_ms();
  m.tok_per_sec = in.tok_per_sec();
  m.mfu = in.mfu();
  m.lr_scale = in.lr_scale();
  m.grad_norm = in.grad_norm();
  m.expert_load_min = in.expert_load_min();
  m.expert_load_max = in.expert_load_max();
  m.peak_mem_mib = in.peak_mem_mib();
  m.val_loss = in.val_loss();
  m.unix_ms = in.unix_ms();
  return m;
}

}  // namespace assay
