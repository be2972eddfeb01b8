//! The Llama graph, its configuration and weights, generic over a device backend.
