"""Files of others as data of this project: checkpoints (`checkpoints`) and arrays, without running code in them."""
