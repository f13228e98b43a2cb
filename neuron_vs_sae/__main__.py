"""`python -m neuron_vs_sae` is `nvs`."""

from neuron_vs_sae.cli.commands import main

main()
