"""The API's pure part: ARM JSON to the model's types and back. No I/O, no clock."""
