"""Mathematics: tensors in, tensors out; one file is one idea of one paper."""
