# make help lists the targets. Each sets up what it needs by itself.
.DEFAULT_GOAL := help
.PHONY: help setup test coverage audit lint format demo colcon clean

# DISTRO=jazzy and DISTRO=humble take environments of their own, see scripts/setup.sh.
export DISTRO ?= kilted
PYTHON_BIN = $(if $(filter kilted,$(DISTRO)),.venv,.venv-$(DISTRO))/bin
WITH_ROS := scripts/with_ros.sh
# Much of the suite waits for messages and processes: three at once on two cores, each with a ROS domain of its own. 0: one, in line.
WORKERS ?= 3

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Make .venv with everything (DISTRO=jazzy or humble: another one); does nothing when it is complete
	@scripts/setup.sh

demo: setup ## The whole story on generated data, or: make demo BAG=my_bag MAP=my_map [MATCHER=mast3r]
	@$(WITH_ROS) $(PYTHON_BIN)/mast3r_ros demo $(if $(BAG),--bag "$(BAG)") $(if $(MAP),--map "$(MAP)") $(if $(MATCHER),--matcher "$(MATCHER)")

test: setup ## Run the tests (ARGS="test/test_x.py -k name" for some of them; DISTRO=jazzy or humble), WORKERS=3 processes at once; COVERAGE=1 notes what ran
	@$(WITH_ROS) $(PYTHON_BIN)/python $(if $(COVERAGE),-m coverage run) -m pytest $(or $(ARGS),-n $(WORKERS) --dist loadfile --no-loadscope-reorder)

# The processes that the tests start are counted too. The floor may only grow; 94.2 % were measured.
coverage: setup ## Lines and branches that `make test COVERAGE=1` ran; fails below the floor of the nodes
	@$(PYTHON_BIN)/python -m coverage combine --quiet
	@$(PYTHON_BIN)/python -m coverage report --include='mast3r_ros/ros/*' --skip-covered --fail-under=93
	@$(PYTHON_BIN)/python -m coverage report --skip-covered --sort=miss

audit: override DISTRO := kilted
audit: setup ## Known vulnerabilities of the pinned libraries; says so where there is no data
	@$(PYTHON_BIN)/python scripts/audit.py

lint: override DISTRO := kilted
lint: setup ## ruff check, ruff format --check, mypy
	@$(PYTHON_BIN)/ruff check .
	@$(PYTHON_BIN)/ruff format --check .
	@$(PYTHON_BIN)/mypy

format: override DISTRO := kilted
format: setup ## Let ruff format and tidy the code
	@$(PYTHON_BIN)/ruff format .
	@$(PYTHON_BIN)/ruff check --fix .

colcon: setup ## Build and test with colcon in a clean workspace, as a robot would
	@$(WITH_ROS) scripts/colcon_check.sh

clean: ## Remove .venv, caches and everything generated
	rm -rf .venv .venv-jazzy .venv-humble .cache build install log demo_output *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
