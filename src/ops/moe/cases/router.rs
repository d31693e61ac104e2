//! The router, its auxiliary loss, and the correction of the choice.

use super::{gradients, numbers};
use crate::gpu::ElementType;
use crate::ops::add::add as sum;
use crate::ops::linear::linear;
use crate::ops::moe::kernel::{self, Chosen, Partials, Router, RouterGradient};
use crate::ops::moe::router::route;
use crate::ops::moe::{AuxLoss, RouterConfig, Routing, Scoring, WeightRule, balance, balanced_correction, sigmoid, softmax};
use crate::ops::table::{Case, HostOperands, Operand, Outputs, Precision, Problem, Traffic, Type, normal, widened};
use crate::tape::Tape;
use crate::tensor::{Float, Tensor};
use crate::{Result, with_precision};

/// A router, and what else differs between cases.
#[derive(Debug, Clone, Copy)]
struct Setting {
    router: Router,
    /// Whether a correction is added for the choice.
    corrected: bool,
    logits: Logits,
}

/// What a router is given.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Logits {
    Normal,
    /// Whole numbers, of which many are equal.
    Ties,
    /// Some are no numbers: only the choices are compared.
    Nan,
}

const SEQUENCE: AuxLoss = AuxLoss::Sequence { alpha: 0.7 };
const TOKEN: AuxLoss = AuxLoss::Token { alpha: 0.7 };
const SWITCH: AuxLoss = AuxLoss::Switch { coef: 0.7 };

/// DeepSeek-V3's, of so many groups.
fn deepseek(top_k: usize, groups: usize, top_groups: usize, aux_loss: AuxLoss) -> RouterConfig {
    let scoring = Scoring::Sigmoid;
    RouterConfig { top_k, scoring, weights: WeightRule::Normalised, aux_loss, groups, top_groups, scale: 2.5 }
}

/// Every rule and form at odd sizes, MiniMind's and larger routers at sizes of a step.
pub fn cases() -> Vec<Case> {
    use WeightRule::{Normalised, NormalisedIfSeveral, Softmax};
    let softmax = RouterConfig::softmax;
    let mut cases = Vec::new();
    for (sizes, config, corrected, logits) in [
        ([1, 1, 8], softmax(2, Normalised, TOKEN), false, Logits::Normal),
        ([1, 5, 1], softmax(1, Normalised, SWITCH), false, Logits::Normal),
        ([3, 171, 5], softmax(2, Softmax, SEQUENCE), false, Logits::Normal),
        ([2, 65, 4], softmax(1, NormalisedIfSeveral, SWITCH), false, Logits::Normal),
        ([1, 513, 4], softmax(4, Normalised, TOKEN), false, Logits::Normal),
        ([1, 511, 64], softmax(6, NormalisedIfSeveral, AuxLoss::None), false, Logits::Normal),
        ([2, 20, 129], softmax(9, Normalised, SEQUENCE), true, Logits::Normal),
        ([1, 100, 40], softmax(7, Normalised, TOKEN), false, Logits::Ties),
        ([2, 65, 6], deepseek(3, 3, 2, SEQUENCE), true, Logits::Normal),
        ([2, 65, 6], deepseek(2, 3, 1, TOKEN), false, Logits::Ties),
        ([1, 65, 9], deepseek(4, 3, 2, AuxLoss::None), true, Logits::Nan),
        ([1, 17, 12], deepseek(10, 4, 4, TOKEN), false, Logits::Normal),
        ([1, 33, 256], deepseek(8, 8, 4, SEQUENCE), true, Logits::Normal),
    ] {
        add(&mut cases, sizes, config, corrected, logits, Traffic::Unmeasured);
    }
    add(&mut cases, [16, 512, 8], softmax(2, Normalised, SEQUENCE), false, Logits::Normal, Traffic::Streaming);
    add(&mut cases, [4, 1024, 64], softmax(8, Normalised, TOKEN), false, Logits::Normal, Traffic::Streaming);
    for experts in [1, 8, 256] {
        for finite in [1.0, 0.0] {
            let shape = format!("{experts}, {}", if finite == 1.0 { "finite" } else { "not finite" });
            cases.push(Case::new("moe_balance", "correct", &shape, ElementType::F32, move || correct(experts, finite)));
        }
    }
    cases
}

fn add(
    cases: &mut Vec<Case>,
    [sequences, length, experts]: [usize; 3],
    config: RouterConfig,
    corrected: bool,
    logits: Logits,
    traffic: Traffic,
) {
    let setting = Setting { router: Router { sequences, length, experts, config }, corrected, logits };
    let shape = format!("{sequences}x{length}, {} of {experts}{}", config.top_k, setting.words());
    cases.push(Case::new("moe_router", "forward", &shape, ElementType::F32, move || setting.forward(traffic)));
    if logits == Logits::Nan {
        return;
    }
    let elements = if traffic == Traffic::Unmeasured { &ElementType::ALL[..] } else { &[ElementType::BF16] };
    for &element in elements {
        cases.push(Case::new("moe_router", "backward", &shape, element, move || setting.backward(traffic)));
    }
}

impl Setting {
    /// What is special, for people.
    fn words(&self) -> String {
        let RouterConfig { scoring, aux_loss, groups, top_groups, .. } = self.router.config;
        let mut words = String::new();
        if scoring == Scoring::Sigmoid {
            words += ", sigmoid";
        }
        if top_groups < groups {
            words += &format!(", {top_groups} of {groups} groups");
        }
        if self.corrected {
            words += ", corrected";
        }
        words += match self.logits {
            Logits::Normal => "",
            Logits::Ties => ", ties",
            Logits::Nan => ", NaN",
        };
        words
            + match aux_loss {
                AuxLoss::None => "",
                AuxLoss::Sequence { .. } => ", sequence loss",
                AuxLoss::Token { .. } => ", token loss",
                AuxLoss::Switch { .. } => ", switch loss",
            }
    }

    fn tokens(&self) -> usize {
        self.router.sequences * self.router.length
    }

    fn choices(&self) -> [usize; 2] {
        [self.tokens(), self.router.config.top_k]
    }

    fn has_loss(&self) -> bool {
        self.router.config.aux_loss != AuxLoss::None
    }

    fn logits(&self) -> Operand {
        let shape = [self.tokens(), self.router.experts];
        let logits = normal(shape[0] * shape[1], 1).into_iter().map(|l| match self.logits {
            Logits::Normal => l,
            Logits::Ties => l.round(),
            Logits::Nan if l < -0.2 => f64::NAN,
            Logits::Nan => l,
        });
        Operand::input("logits", Type::F32, shape, logits.collect())
    }

    fn correction(&self) -> Operand {
        let correction = normal(self.router.experts, 2).into_iter().map(|c| 0.1 * c).collect();
        Operand::input("correction", Type::F32, [1, self.router.experts], correction)
    }

    fn forward(self, traffic: Traffic) -> Problem {
        let Router { experts, .. } = self.router;
        let partials = self.router.partials() * experts;
        let mut operands = vec![
            match self.logits {
                Logits::Nan => Operand::workspace("weights", Type::F32, self.choices().iter().product()),
                _ => Operand::output("weights", Type::F32, self.choices()),
            },
            Operand::output("choices", Type::I32, self.choices()),
            Operand::workspace("sums", Type::F32, partials),
            Operand::workspace("counts", Type::I32, partials),
            self.logits(),
        ];
        if self.corrected {
            operands.push(self.correction());
        }
        if self.has_loss() {
            operands.push(Operand::output("loss", Type::F32, [1, self.router.balanced()]));
            operands.push(Operand::output("fractions", Type::F32, [self.router.balanced(), experts]));
        }
        Problem {
            operands,
            run: Box::new(move |on| {
                let to = Chosen { weights: on.slice_mut("weights")?, choices: on.slice_mut("choices")? };
                let partials = Partials { sums: on.slice_mut("sums")?, counts: on.slice_mut("counts")? };
                let correction = self.corrected.then(|| on.slice("correction")).transpose()?;
                self.router.forward(on.context(), to, partials, on.slice("logits")?, correction)?;
                match self.has_loss() {
                    true => self.router.balance(on.context(), on.slice_mut("loss")?, on.slice_mut("fractions")?, partials),
                    false => Ok(()),
                }
            }),
            reference: Box::new(move |arithmetic, host| {
                with_precision!(arithmetic, P => {
                    let correction = self.corrected.then(|| host.get("correction"));
                    self.routed::<<P as Precision>::Number>(host.get("logits"), correction)
                })
                .unwrap_or_default()
            }),
            flops: 5 * (self.tokens() * experts) as u64,
            traffic,
        }
    }

    fn backward(self, traffic: Traffic) -> Problem {
        let Router { experts, .. } = self.router;
        let slots = self.tokens() * self.router.config.top_k;
        let mut operands = vec![
            Operand::output("d_logits", Type::Activation, [self.tokens(), experts]),
            Operand::input("d_weights", Type::F32, self.choices(), normal(slots, 3)),
            Operand::input("d_loss", Type::F32, [1, 1], vec![0.6]),
            self.logits(),
        ];
        let correction = self.corrected.then(|| self.correction().values);
        let routed = self.routed::<f64>(self.logits().values, correction).unwrap_or_default(); // what forward leaves
        let find = |name| routed.iter().find(|(of, _)| *of == name).map(|(_, values)| values.clone());
        operands.push(Operand::input("choices", Type::I32, self.choices(), find("choices").unwrap_or_default()));
        let fractions = find("fractions").unwrap_or_else(|| vec![f64::NAN; experts]);
        operands.push(Operand::input("fractions", Type::F32, [self.router.balanced(), experts], fractions));
        Problem {
            operands,
            run: Box::new(move |on| {
                let from = RouterGradient {
                    d_weights: on.slice("d_weights")?,
                    d_loss: on.slice("d_loss")?,
                    logits: on.slice("logits")?,
                    choices: on.slice("choices")?,
                    fractions: on.slice("fractions")?,
                };
                self.router.backward(on.context(), on.activations_mut("d_logits")?, from)
            }),
            reference: Box::new(move |arithmetic, host| {
                with_precision!(arithmetic, P => self.gradient::<P>(host)).unwrap_or_default()
            }),
            flops: 10 * (self.tokens() * experts) as u64,
            traffic,
        }
    }
}

/// The operations' results.
impl Setting {
    fn tensor<F: Float>(&self, logits: Vec<F>) -> Result<Tensor> {
        Tensor::new([self.router.sequences, self.router.length, self.router.experts], logits)
    }

    fn routed<F: Float>(&self, logits: Vec<F>, correction: Option<Vec<F>>) -> Result<Outputs> {
        let Router { experts, config, .. } = self.router;
        let correction = correction.map(|values| Tensor::new([experts], values)).transpose()?;
        let routed = route(&mut Tape::inference(), &self.tensor(logits.clone())?.into(), correction.as_ref(), &config)?;
        let choices = numbers(routed.routing.choices());
        let mut outputs: Outputs = vec![("weights", routed.weights.value().to_f64()?), ("choices", choices)];
        if !self.has_loss() {
            return Ok(outputs);
        }
        let (scores, shares) = match config.scoring {
            Scoring::Softmax => {
                let mut scores = logits.clone();
                softmax::reference(&logits, experts, &mut scores);
                (scores.clone(), scores)
            }
            Scoring::Sigmoid => {
                let (scores, shares): (Vec<_>, Vec<_>) = logits.chunks_exact(experts).map(sigmoid::reference).unzip();
                (scores.concat(), shares.concat())
            }
        };
        let parts = self.router.balanced();
        let group = self.tokens() / parts;
        let (mut loss, mut fractions) = (Vec::new(), Vec::new());
        for (scores, shares) in scores.chunks_exact(group * experts).zip(shares.chunks_exact(group * experts)) {
            let counted = Routing::choose(&Tensor::new([group, experts], scores.to_vec())?, config.top_k)?;
            let choices: Vec<usize> = counted.choices().iter().map(|&e| e as usize).collect();
            let of_part = balance::reference(shares, &choices, [1, group, experts], config.top_k, config.aux_loss);
            loss.push((of_part / F::of(parts as f64)).f64());
            let slots = F::of((group * config.top_k) as f64);
            fractions.extend(counted.counts().iter().map(|&count| (F::of(count as f64) / slots).f64()));
        }
        outputs.extend([("loss", loss), ("fractions", fractions)]);
        Ok(outputs)
    }

    fn gradient<P: Precision>(&self, host: &HostOperands) -> Result<Outputs> {
        let correction = self.corrected.then(|| Tensor::new([self.router.experts], self.correction().values)).transpose()?;
        let row = |name| host.get::<P::Number>(name);
        let slots = self.tokens() * self.router.config.top_k;
        let mut tape = Tape::recording();
        let logits = tape.input(self.tensor(row("logits"))?);
        let routed = route(&mut tape, &logits, correction.as_ref(), &self.router.config)?;
        let weights = linear(&mut tape, &routed.weights.reshape([1, slots])?, &Tensor::new([1, slots], row("d_weights"))?.into())?;
        let loss = linear(&mut tape, &routed.aux_loss.reshape([1, 1])?, &Tensor::new([1, 1], row("d_loss"))?.into())?;
        let y = sum(&mut tape, &weights, &loss)?;
        let one = Tensor::new([1, 1], vec![P::Number::of(1.0)])?;
        let d_logits = &gradients(tape, &y, &one, &[&logits])?[0];
        Ok(vec![("d_logits", widened(d_logits.data()?.iter().map(|&x| P::round(x)).collect()))])
    }
}

/// Experts of less than the mean load, more, and just that.
fn correct(experts: usize, finite: f64) -> Problem {
    const SPEED: f32 = 0.001;
    let loads: Vec<usize> = (0..experts).map(|e| [3, 5, 4, 4][e % 4]).collect();
    Problem {
        operands: vec![
            Operand::in_out("correction", Type::F32, [1, experts], normal(experts, 1)),
            Operand::input("load", Type::I32, [1, experts], loads.iter().map(|&load| load as f64).collect()),
            Operand::input("finite", Type::I32, [1, 1], vec![finite]),
        ],
        run: Box::new(move |on| {
            kernel::correct(on.context(), experts, on.slice_mut("correction")?, on.slice("load")?, on.slice("finite")?, SPEED)
        }),
        reference: Box::new(move |_, host| {
            let mut correction = host.get::<f32>("correction");
            if finite != 0.0 {
                balanced_correction(&mut correction, &loads, f64::from(SPEED));
            }
            vec![("correction", widened(correction))]
        }),
        flops: experts as u64,
        traffic: Traffic::Unmeasured,
    }
}
