#include "engine/optim/optimizer.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace assay {

AdamWRule adamw_rule(ParameterKind kind, const TrainConfig& t, int64_t d_model) {
  const double width = std::sqrt(768.0 / static_cast<double>(d_model));  // the rates are tuned at d = 768
  switch (kind) {
    case ParameterKind::lm_head:
      return {t.unembedding_lr * width, 0.8, 0.96, 0.01};
    case ParameterKind::token_embedding:
      return {t.embedding_lr * width, 0.8, 0.995, 0.001};
    case ParameterKind::value_embedding:
      return {0.5 * t.embedding_lr * width, 0.8, 0.995, 0.01};
    case ParameterKind::resid_lambda:
      return {0.01 * t.scalar_lr, 0.8, 0.95, 0.05};
    case ParameterKind::x0_lambda:
      return {t.scalar_lr, 0.96, 0.95, 0.0};
    default:
      return {};  // Muon's
  }
}

namespace {

// One call of Muon for all matrices of a shape, in the order in which the shapes first appear.
std::vector<MuonArgs> muon_groups(Weights& weights) {
  std::vector<MuonArgs> groups;
  for (Weight& w : weights.all()) {
    if (!is_muon(w.spec.kind)) continue;
    const auto same_shape = [&](const MuonArgs& group) {
      const Tensor& other = group.stacks.front().param;
      return other.dim(1) == w.master.dim(1) && other.dim(2) == w.master.dim(2);
    };
    auto group = std::find_if(groups.begin(), groups.end(), same_shape);
    if (group == groups.end()) group = groups.emplace(groups.end());
    group->stacks.push_back({.param = w.master, .grad = w.grad, .momentum = w.moment1, .second_moment = w.moment2});
  }
  return groups;
}

}  // namespace

void optimizer_step(Weights& weights, const RunConfig& config, int64_t step, bool full_precision, const int32_t* skip,
                    Ops& ops) {
  const TrainConfig& t = config.train;
  const double scale = lr_scale(t, step);
  for (MuonArgs& group : muon_groups(weights)) {
    group.rates = {
        .lr = t.matrix_lr * scale, .momentum_beta = muon_momentum(t, step), .weight_decay = muon_weight_decay(t, step)};
    group.full_precision = full_precision;
    group.skip = skip;
    ops.muon(group);
  }
  for (Weight& w : weights.all()) {
    if (is_muon(w.spec.kind)) continue;
    const AdamWRule rule = adamw_rule(w.spec.kind, t, model_width(config.model));
    ops.adamw({.param = w.master,
               .grad = w.grad,
               .m = w.moment1,
               .v = w.moment2,
               .lr = rule.lr * scale,
               .beta1 = rule.beta1,
               .beta2 = rule.beta2,
               .eps = adamw_eps,
               .weight_decay = rule.weight_decay,
               .step = step + 1,
               .skip = skip});
  }
}

}  // namespace assay
