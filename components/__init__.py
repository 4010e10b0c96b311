"""The component suite: one folder a component; component.py is the KFP interface, its siblings are the logic."""
