"""Device probe of the hardware check, under its old name for one release."""

from jaxalign.experiments import hardware_check

if __name__ == "__main__":
  hardware_check.probe()
