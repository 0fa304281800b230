"""Everything that only a GPU can show, one file a part; ``benchmarks/gpu.sh`` runs them, ``table`` judges them."""
