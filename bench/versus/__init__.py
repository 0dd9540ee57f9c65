"""Side by side with NVIDIA's perf_analyzer and Triton Model Analyzer, on one real Triton."""
