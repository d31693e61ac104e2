// What changes from one optimizer step to the next. It lies in device memory, so that the launches of a captured step never change:
// gradient_norm_step writes it, the backward pass reads LOSS_SCALE, and adamw the rest.
#pragma once

// float state[STATE_FLOATS]
enum StateFloat {
    LOSS_SCALE,  // what the loss of the next step is multiplied by; the host sets the first
    NORM,        // of the gradient, before clipping, without the loss scale
    GRAD_SCALE,  // what AdamW multiplies gradients by: the clip factor over the loss scale they were computed with
    RATE,        // learning rate
    STEP_SIZE,   // RATE / (1 - beta1^t), where t counts updates from 1
    V_SCALE,     // 1 / sqrt(1 - beta2^t)
    STATE_FLOATS
};

// int counts[STATE_COUNTS], all zero at the start
enum StateCount {
    STEPS,       // steps so far, skipped ones too: the place in the table of learning rates
    UPDATES,     // steps that changed the weights
    STREAK,      // of them, those since the loss scale last changed
    FINITE,      // whether the last step's gradient was; if not, AdamW writes nothing
    OVERFLOWED,  // whether an update ever made a weight infinite or NaN
    STATE_COUNTS
};
