//! The model's parameters: their public names, their places in the flat buffer, their first values.

use rayon::prelude::*;

use super::config::{AttentionConfig, Family, GqaConfig, MlaConfig, ModelConfig, MoeConfig, RotaryKey};
use crate::ops::moe::Scoring;
use crate::params::{Layout, Param, Params};
use crate::rng::Philox;
use crate::tensor::{DType, Shape};
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
    /// `[E]`, added to the scores for the choice alone: no gradient reaches it.
    pub correction: Option<Param>,
    /// Experts that every token passes through.
    pub shared: Vec<Mlp>,
}

/// What follows attention in a block.
#[derive(Debug, Clone)]
pub(super) enum FeedForward {
    Dense(Mlp),
    Experts(Experts),
}

/// Grouped-query attention.
#[derive(Debug, Clone)]
pub(super) struct Gqa {
    /// `[(heads + 2·kv_heads)·D, H]`: q, k, v.
    pub qkv: Param,
    /// Weights `[D]` of the norms of q and k.
    pub qk_norm: Option<[Param; 2]>,
    /// `[H, heads·D]`.
    pub o: Param,
}

/// Multi-head latent attention, of r for the latent, heads of N + R columns of queries and keys and Dv of values.
#[derive(Debug, Clone)]
pub(super) struct Mla {
    /// What is projected out of the hidden state, `[.., H]`: with one rotated key for all heads, the queries `[heads·(N + R)]` or
    /// their low rank, the latent `[r]` and the rotated key `[R]`; else the queries' plain parts `[heads·N]`, their rotated ones
    /// `[heads·R]` and the latent.
    pub down: Param,
    /// The norm of the queries' low rank, and the projection from it to the queries, `[heads·(N + R), rank]`.
    pub q_up: Option<(Param, Param)>,
    /// `[r]`.
    pub kv_norm: Param,
    /// Out of the latent, `[.., r]`: for each head N rows of keys and Dv of values; or N + R rows of keys for each head, then Dv of
    /// values for each.
    pub kv_up: Param,
    /// `[H, heads·Dv]`.
    pub o: Param,
}

/// How the tokens see each other in a block.
#[derive(Debug, Clone)]
pub(super) enum Attention {
    Gqa(Gqa),
    Mla(Mla),
}

/// One block.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub input_norm: Param,
    pub attention: Attention,
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

/// The names of a line's modules; `.weight` follows them in a file.
struct Names {
    embedding: &'static str,
    layers: &'static str,
    input_norm: &'static str,
    attention: &'static str,
    /// The output projection of attention.
    o: &'static str,
    post_attention_norm: &'static str,
    mlp: &'static str,
    /// Gate, up and down projection of a feed-forward network.
    mlp_parts: [&'static str; 3],
    /// The module of router and experts.
    moe: &'static str,
    /// Gate, up and down projection of an expert.
    expert_parts: [&'static str; 3],
    final_norm: &'static str,
}

const PUBLIC: Names = Names {
    embedding: "model.embed_tokens",
    layers: "model.layers",
    input_norm: "input_layernorm",
    attention: "self_attn",
    o: "o_proj",
    post_attention_norm: "post_attention_layernorm",
    mlp: "mlp",
    mlp_parts: ["gate_proj", "up_proj", "down_proj"],
    moe: "mlp",
    expert_parts: ["gate_proj", "up_proj", "down_proj"],
    final_norm: "model.norm",
};

const MIXTRAL: Names = Names { moe: "block_sparse_moe", expert_parts: ["w1", "w3", "w2"], ..PUBLIC };

const NOTES_MLA: Names = Names {
    embedding: "tok_embed",
    layers: "layers",
    input_norm: "attn_norm",
    attention: "attn",
    o: "out_proj",
    post_attention_norm: "ffn_norm",
    mlp: "ffn",
    mlp_parts: ["w1", "w3", "w2"],
    final_norm: "norm",
    ..PUBLIC
};

impl Family {
    fn names(self) -> &'static Names {
        match self {
            Self::Llama | Self::Qwen3 | Self::DeepSeekV3 => &PUBLIC,
            Self::Mixtral => &MIXTRAL,
            Self::NotesMla => &NOTES_MLA,
        }
    }
}

/// Adds a model's parameters to a layout, under the names of its line.
struct Builder<'a> {
    config: &'a ModelConfig,
    names: &'static Names,
    layout: Layout,
}

impl Weights {
    /// Names and places of every parameter, under the names of the public weights files.
    pub fn layout(config: &ModelConfig) -> (Self, Layout) {
        let mut builder = Builder { config, names: config.family.names(), layout: Layout::default() };
        let (names, h) = (builder.names, config.hidden_size);
        let embedding = builder.add(names.embedding, [config.vocab_size, h]);
        let layers = (0..config.num_hidden_layers).map(|l| builder.layer(l)).collect();
        let final_norm = builder.add(names.final_norm, [h]);
        let head = match config.tie_word_embeddings {
            true => embedding.clone(),
            false => builder.add("lm_head", [config.vocab_size, h]),
        };
        (Self { embedding, layers, final_norm, head }, builder.layout)
    }
}

impl Builder<'_> {
    fn add(&mut self, module: impl std::fmt::Display, shape: impl Into<Shape>) -> Param {
        self.layout.add(format!("{module}.weight"), shape)
    }

    /// Neighbours under `prefix` that one product serves: names of modules and rows.
    fn add_fused(&mut self, prefix: &str, parts: &[(&str, usize)], cols: usize) -> Param {
        let parts: Vec<_> = parts.iter().map(|(module, rows)| (format!("{prefix}.{module}.weight"), *rows)).collect();
        self.layout.add_fused(&parts, cols)
    }

    fn layer(&mut self, l: usize) -> Layer {
        let (config, names) = (self.config, self.names);
        let (prefix, h) = (format!("{}.{l}", names.layers), config.hidden_size);
        let input_norm = self.add(format!("{prefix}.{}", names.input_norm), [h]);
        let attention_prefix = format!("{prefix}.{}", names.attention);
        let attention = match &config.attention {
            AttentionConfig::Gqa(gqa) => Attention::Gqa(self.gqa(&attention_prefix, gqa)),
            AttentionConfig::Mla(mla) => Attention::Mla(self.mla(&attention_prefix, mla)),
        };
        let post_attention_norm = self.add(format!("{prefix}.{}", names.post_attention_norm), [h]);
        let feed_forward = match config.experts_of(l) {
            None => FeedForward::Dense(self.mlp(&format!("{prefix}.{}", names.mlp), names.mlp_parts, config.intermediate_size)),
            Some(moe) => FeedForward::Experts(self.experts(&prefix, moe)),
        };
        Layer { input_norm, attention, post_attention_norm, feed_forward }
    }

    fn gqa(&mut self, prefix: &str, gqa: &GqaConfig) -> Gqa {
        let (h, [q, kv, _]) = (self.config.hidden_size, gqa.widths(self.config.num_attention_heads));
        let qkv = self.add_fused(prefix, &[("q_proj", q), ("k_proj", kv), ("v_proj", kv)], h);
        let o = self.add(format!("{prefix}.{}", self.names.o), [h, q]);
        let qk_norm = gqa.qk_norm.then(|| ["q_norm", "k_norm"].map(|name| self.add(format!("{prefix}.{name}"), [gqa.head_dim])));
        Gqa { qkv, qk_norm, o }
    }

    fn mla(&mut self, prefix: &str, mla: &MlaConfig) -> Mla {
        let (h, heads, rank) = (self.config.hidden_size, self.config.num_attention_heads, mla.kv_lora_rank);
        let (nope, rope, value) = (heads * mla.qk_nope_head_dim, heads * mla.qk_rope_head_dim, heads * mla.v_head_dim);
        let module = |name: &str| format!("{prefix}.{name}");
        let (down, q_up, kv_norm, kv_up) = match mla.rotary_key {
            RotaryKey::Shared => {
                let q = mla.q_lora_rank.map_or(("q_proj", nope + rope), |rank| ("q_a_proj", rank));
                let down = self.add_fused(prefix, &[q, ("kv_a_proj_with_mqa", rank + mla.qk_rope_head_dim)], h);
                let q_up = mla
                    .q_lora_rank
                    .map(|rank| (self.add(module("q_a_layernorm"), [rank]), self.add(module("q_b_proj"), [nope + rope, rank])));
                (down, q_up, self.add(module("kv_a_layernorm"), [rank]), self.add(module("kv_b_proj"), [nope + value, rank]))
            }
            RotaryKey::PerHead => {
                let down = self.add_fused(prefix, &[("q_nope", nope), ("q_rope", rope), ("kv_compress", rank)], h);
                let kv_norm = self.add(module("kv_norm"), [rank]);
                (down, None, kv_norm, self.add_fused(prefix, &[("k_up", nope + rope), ("v_up", value)], rank))
            }
        };
        Mla { down, q_up, kv_norm, kv_up, o: self.add(module(self.names.o), [h, value]) }
    }

    fn mlp(&mut self, prefix: &str, [gate, up, down]: [&str; 3], i: usize) -> Mlp {
        let h = self.config.hidden_size;
        Mlp { gate_up: self.add_fused(prefix, &[(gate, i), (up, i)], h), down: self.add(format!("{prefix}.{down}"), [h, i]) }
    }

    fn experts(&mut self, layer: &str, moe: &MoeConfig) -> Experts {
        let (experts, h, i) = (moe.num_experts, self.config.hidden_size, moe.intermediate_size);
        let [gate, up, down] = self.names.expert_parts;
        let prefix = format!("{layer}.{}", self.names.moe);
        let router = self.add(format!("{prefix}.gate"), [experts, h]);
        let correction = (moe.router.scoring == Scoring::Sigmoid)
            .then(|| self.layout.add_buffer(format!("{prefix}.gate.e_score_correction_bias"), [experts]));
        let modules: Vec<String> = (0..experts).map(|e| format!("experts.{e}")).collect();
        let names = |parts: &[&str]| -> Vec<String> {
            modules.iter().flat_map(|expert| parts.iter().map(move |part| format!("{expert}.{part}"))).collect()
        };
        let (gate_up, down) = (names(&[gate, up]), names(&[down]));
        let rows = |names: &[String], rows: usize| -> Vec<(String, usize)> {
            names.iter().map(|name| (format!("{prefix}.{name}.weight"), rows)).collect()
        };
        let gate_up = self.layout.add_fused(&rows(&gate_up, i), h).reshaped([experts, 2 * i, h]);
        let down = self.layout.add_fused(&rows(&down, h), i).reshaped([experts, h, i]);
        // Transformers 5 holds them so, whatever the line's files do.
        let held = format!("{layer}.{}", PUBLIC.moe);
        if held != prefix {
            self.layout.add_alias(format!("{held}.gate.weight"), &router);
        }
        self.layout.add_alias(format!("{held}.experts.gate_up_proj"), &gate_up);
        self.layout.add_alias(format!("{held}.experts.down_proj"), &down);
        let shared = match self.config.family {
            // One network as wide as all of them together: the same sum.
            Family::DeepSeekV3 if moe.num_shared_experts > 0 => {
                vec![self.mlp(&format!("{prefix}.shared_experts"), PUBLIC.mlp_parts, moe.num_shared_experts * i)]
            }
            _ => (0..moe.num_shared_experts)
                .map(|s| self.mlp(&format!("{prefix}.shared_experts.{s}"), PUBLIC.mlp_parts, i))
                .collect(),
        };
        Experts { router, correction, gate_up, down, shared }
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

/// First values in f32, those of [`Init::Normal`] of deviation `std`. Each depends on the seed, its parameter's place in the layout and
/// its own place in the parameter. The embedding lies first; what is not trained begins as zeros.
pub(super) fn initialise(layout: Layout, init: Init, std: f64, seed: u64) -> Result<Params> {
    let mut params = Params::zeros(layout.clone(), DType::F32);
    let mut rest = params.flat_mut::<f32>()?;
    for (i, entry) in layout.entries().iter().enumerate() {
        let (values, tail) = rest.split_at_mut(entry.shape.elements());
        rest = tail;
        let philox = Philox::new(seed).stream(i as u64);
        let draw: Box<dyn Fn(u64) -> f64 + Sync> = match (entry.shape.dims(), init) {
            _ if !entry.trainable => Box::new(|_| 0.0),
            ([_], _) => Box::new(|_| 1.0),
            (_, Init::Normal) => Box::new(move |j| std * philox.normal(j)),
            _ if entry.offset == 0 => Box::new(move |j| philox.normal(j)),
            _ => {
                let bound = (entry.shape.cols() as f64).sqrt().recip();
                Box::new(move |j| bound * (2.0 * philox.uniform(j) - 1.0))
            }
        };
        values.par_iter_mut().enumerate().for_each(|(j, value)| *value = draw(j as u64) as f32);
    }
    Ok(params)
}
