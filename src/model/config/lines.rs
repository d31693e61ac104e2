//! What the models of each line may be: what no file of the line could say is an error before a run begins, not after it.

use super::{AttentionConfig, Family, ModelConfig, MoeConfig, RotaryKey};
use crate::ops::moe::Scoring;
use crate::ops::rope::{RopeLayout, RopeScaling, Yarn, YarnForm};
use crate::{Error, Result};

/// The norms of DeepSeek-V3's latents have an epsilon of their own, whatever the model's.
pub(crate) const DEEPSEEK_LATENT_EPS: f64 = 1e-6;

impl ModelConfig {
    /// An error that names the first setting that the files of the model's line have no place for.
    pub(super) fn validate_line(&self) -> Result<()> {
        let layers = self.num_hidden_layers;
        let minimind = matches!(self.rope_scaling, RopeScaling::Yarn(yarn) if yarn.form != YarnForm::Public);
        self.expect(self.has_attention_of_line(), "this kind of attention")?;
        if let RopeScaling::Yarn(yarn) = &self.rope_scaling {
            self.expect(yarn.form == YarnForm::Public || yarn.is_minimind(), "these settings of MiniMind's YaRN")?;
        }
        let moe = self.moe.as_ref();
        self.expect(
            match self.family {
                Family::Llama => moe.is_none() || minimind || self.rope_scaling == RopeScaling::Default,
                Family::Qwen3 => true,
                Family::Mixtral | Family::DeepSeekV3 | Family::NotesMla => !minimind,
            },
            "this form of rope_scaling",
        )?;
        let Some(moe) = moe else { return self.expect(self.family != Family::Mixtral, "a form without experts") };
        self.expect(moe.dense_layers.len() < layers, "experts where every layer is dense")?;
        let (dense, rule, top_k) = (&moe.dense_layers, moe.router.weights, moe.router.top_k);
        let (experts, dense, shared, weights) = match self.family {
            Family::Llama => (true, dense.is_empty(), true, top_k > 1 || !rule.normalises(top_k)),
            Family::Qwen3 => (true, dense.is_empty() || !minimind, moe.num_shared_experts == 0, true),
            Family::Mixtral => (true, dense.is_empty(), moe.num_shared_experts == 0, rule.normalises(top_k)),
            Family::DeepSeekV3 => (true, dense.iter().copied().eq(0..dense.len()), moe.num_shared_experts > 0, true),
            Family::NotesMla => (false, true, true, true),
        };
        self.expect(experts, "a form with experts")?;
        self.expect(dense, &format!("the dense layers {:?} among those with experts", moe.dense_layers))?;
        self.expect(shared, &format!("{} shared experts", moe.num_shared_experts))?;
        self.expect(weights, &format!("the weights {rule:?} of {top_k} experts per token"))?;
        self.expect(self.has_scores_of_line(moe), "this scoring of experts (sigmoid, groups, routed_scaling_factor)")
    }

    fn expect(&self, fits: bool, what: &str) -> Result<()> {
        let message = || Error::config(format!("models of the line {:?} do not have {what}", self.family));
        if fits { Ok(()) } else { Err(message()) }
    }

    fn has_attention_of_line(&self) -> bool {
        match (self.family, &self.attention) {
            (Family::Llama | Family::Mixtral, AttentionConfig::Gqa(gqa)) => !gqa.qk_norm,
            (Family::Qwen3, AttentionConfig::Gqa(gqa)) => gqa.qk_norm,
            (Family::DeepSeekV3, AttentionConfig::Mla(mla)) => {
                mla.rotary_key == RotaryKey::Shared && mla.latent_norm_eps == DEEPSEEK_LATENT_EPS
            }
            (Family::NotesMla, AttentionConfig::Mla(mla)) => {
                let layout = mla.rope_layout == RopeLayout::Interleaved && mla.latent_norm_eps == self.rms_norm_eps;
                mla.rotary_key == RotaryKey::PerHead && mla.q_lora_rank.is_none() && layout
            }
            _ => false,
        }
    }

    /// Sigmoid scores, groups of experts and a factor of their weights are DeepSeek-V3's.
    fn has_scores_of_line(&self, moe: &MoeConfig) -> bool {
        let router = &moe.router;
        let sigmoid = router.scoring == Scoring::Sigmoid;
        let plain = router.groups == 1 && router.top_groups == 1 && router.scale == 1.0;
        sigmoid == (self.family == Family::DeepSeekV3) && (sigmoid || plain)
    }
}

impl Yarn {
    /// Whether these are settings that MiniMind's forms have.
    fn is_minimind(&self) -> bool {
        let own_factor = self.form == YarnForm::MiniMindLinearBeta && self.attention_factor() != 1.0;
        self.truncate && self.mscale.is_none() && self.mscale_all_dim.is_none() && !own_factor
    }
}
