//! What instructions compute, one lane at a time: pure functions, compiled into the vectorised loops of `machine`.
