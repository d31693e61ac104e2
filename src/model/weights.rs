//! The model's parameters: their public names, their places in the flat buffer, their first values.

use rayon::prelude::*;

use super::config::{ModelConfig, MoeConfig};
use crate::params::{Layout, Param, Params};
use crate::rng::Philox;
use crate::tensor::DType;
use crate::{Error, Result};

/// A gated feed-forward network.
#[derive(Debug, Clone)]
pub(super) struct Mlp {
    /// `[2I, H]`: gate, then up.
    pub gate_up: Param,
    /// `[H, I]`.
    pub down: Param,
}

/// A mixture of experts.
#[derive(Debug, Clone)]
pub(super) struct Experts {
    /// `[E, H]`.
    pub router: Param,
    /// `[E, 2I, H]`.
    pub gate_up: Param,
    /// `[E, H, I]`.
    pub down: Param,
    /// Experts that every token passes through.
    pub shared: Vec<Mlp>,
}

/// What follows attention in a block.
#[derive(Debug, Clone)]
pub(super) enum FeedForward {
    Dense(Mlp),
    Experts(Experts),
}

/// One block.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub input_norm: Param,
    /// `[(heads + 2·kv_heads)·D, H]`: q, k, v.
    pub qkv: Param,
    /// `[H, heads·D]`.
    pub o: Param,
    /// Weights `[D]` of the norms of q and k.
    pub qk_norm: Option<[Param; 2]>,
    pub post_attention_norm: Param,
    pub feed_forward: FeedForward,
}

/// All parameters of a decoder.
#[derive(Debug, Clone)]
pub(super) struct Weights {
    /// `[V, H]`.
    pub embedding: Param,
    pub layers: Vec<Layer>,
    pub final_norm: Param,
    /// `[V, H]`: the embedding itself where tied.
    pub head: Param,
}

impl Weights {
    /// Names and places of every parameter, under the names of the public weights files.
    pub fn layout(config: &ModelConfig) -> (Self, Layout) {
        let mut layout = Layout::default();
        let h = config.hidden_size;
        let embedding = layout.add("model.embed_tokens.weight", [config.vocab_size, h]);
        let layers =
            (0..config.num_hidden_layers).map(|l| Layer::layout(&mut layout, config, &format!("model.layers.{l}"))).collect();
        let final_norm = layout.add("model.norm.weight", [h]);
        let head = match config.tie_word_embeddings {
            true => embedding.clone(),
            false => layout.add("lm_head.weight", [config.vocab_size, h]),
        };
        (Self { embedding, layers, final_norm, head }, layout)
    }
}

impl Layer {
    fn layout(layout: &mut Layout, config: &ModelConfig, prefix: &str) -> Self {
        let (h, d, [q, kv, _]) = (config.hidden_size, config.head_dim, config.qkv_widths());
        let attention = |name: &str| format!("{prefix}.self_attn.{name}.weight");
        Self {
            input_norm: layout.add(format!("{prefix}.input_layernorm.weight"), [h]),
            qkv: layout.add_fused(&[(attention("q_proj"), q), (attention("k_proj"), kv), (attention("v_proj"), kv)], h),
            o: layout.add(attention("o_proj"), [h, q]),
            qk_norm: config.qk_norm.then(|| ["q_norm", "k_norm"].map(|name| layout.add(attention(name), [d]))),
            post_attention_norm: layout.add(format!("{prefix}.post_attention_layernorm.weight"), [h]),
            feed_forward: match &config.moe {
                None => FeedForward::Dense(Mlp::layout(layout, &format!("{prefix}.mlp"), h, config.intermediate_size)),
                Some(moe) => FeedForward::Experts(Experts::layout(layout, &format!("{prefix}.mlp"), h, moe)),
            },
        }
    }
}

impl Mlp {
    fn layout(layout: &mut Layout, prefix: &str, h: usize, i: usize) -> Self {
        Self {
            gate_up: layout.add_fused(&[(format!("{prefix}.gate_proj.weight"), i), (format!("{prefix}.up_proj.weight"), i)], h),
            down: layout.add(format!("{prefix}.down_proj.weight"), [h, i]),
        }
    }
}

impl Experts {
    fn layout(layout: &mut Layout, prefix: &str, h: usize, moe: &MoeConfig) -> Self {
        let (experts, i) = (moe.num_experts, moe.intermediate_size);
        let names = |parts: &[&str]| -> Vec<String> {
            (0..experts).flat_map(|e| parts.iter().map(move |part| format!("{prefix}.experts.{e}.{part}.weight"))).collect()
        };
        let router = layout.add(format!("{prefix}.gate.weight"), [experts, h]);
        let gate_up: Vec<_> = names(&["gate_proj", "up_proj"]).into_iter().map(|name| (name, i)).collect();
        let down: Vec<_> = names(&["down_proj"]).into_iter().map(|name| (name, h)).collect();
        let gate_up = layout.add_fused(&gate_up, h).reshaped([experts, 2 * i, h]);
        let down = layout.add_fused(&down, i).reshaped([experts, h, i]);
        // Transformers 5 holds them so.
        layout.name_fused(format!("{prefix}.experts.gate_up_proj"), &gate_up);
        layout.name_fused(format!("{prefix}.experts.down_proj"), &down);
        Self {
            router,
            gate_up,
            down,
            shared: (0..moe.num_shared_experts)
                .map(|s| Mlp::layout(layout, &format!("{prefix}.shared_experts.{s}"), h, i))
                .collect(),
        }
    }
}

/// How parameters get their first values; norms are always 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// Every matrix normal around 0, of one deviation: MiniMind-3 and the transformers library take 0.02.
    #[default]
    Normal,
    /// PyTorch's own: matrices uniform in ±1/√fan_in, the embedding N(0, 1), as MiniMind-2 began; tied, the head is so too.
    Pytorch,
}

impl std::str::FromStr for Init {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "normal" => Ok(Self::Normal),
            "pytorch" => Ok(Self::Pytorch),
            _ => Err(Error::config(format!("no initialisation is called `{name}`; there are normal, pytorch"))),
        }
    }
}

/// First values in f32, those of [`Init::Normal`] of deviation `std`. Each depends on the seed, its parameter's place in the layout and its own place in the parameter.
pub(super) fn initialise(layout: Layout, init: Init, std: f64, seed: u64) -> Result<Params> {
    let mut params = Params::zeros(layout.clone(), DType::F32);
    let mut rest = params.flat_mut::<f32>()?;
    for (i, entry) in layout.entries().iter().enumerate() {
        let (values, tail) = rest.split_at_mut(entry.shape.elements());
        rest = tail;
        let philox = Philox::new(seed).stream(i as u64);
        let draw: Box<dyn Fn(u64) -> f64 + Sync> = match (entry.shape.dims(), init) {
            ([_], _) => Box::new(|_| 1.0),
            (_, Init::Normal) => Box::new(move |j| std * philox.normal(j)),
            _ if entry.name == "model.embed_tokens.weight" => Box::new(move |j| philox.normal(j)),
            _ => {
                let bound = (entry.shape.cols() as f64).sqrt().recip();
                Box::new(move |j| bound * (2.0 * philox.uniform(j) - 1.0))
            }
        };
        values.par_iter_mut().enumerate().for_each(|(j, value)| *value = draw(j as u64) as f32);
    }
    Ok(params)
}
