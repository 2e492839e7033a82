"""Kitchen: Franka Kitchen's arm and things in MuJoCo; the modes are the orders in which things are done."""
